"""What every sensor is to the rest of the agent."""

from dataclasses import dataclass
from typing import Protocol

from fleet_protocol.messages import MetricKind, Quality


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What is measured: its name in the whole fleet, its unit as in UCUM, how it behaves."""

    name: str
    unit: str
    kind: MetricKind


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric at one moment of the monotonic clock; no value where it is bad."""

    metric: MetricSpec
    value: float | None
    quality: Quality
    mono_ms: int


class Sensor(Protocol):
    """One thing that measures. ``interval_s`` is 0 where ``poll`` itself waits for the next row."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    @property
    def kind(self) -> str:
        """Its driver."""

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """What it measures."""

    @property
    def interval_s(self) -> float:
        """Seconds between two polls."""

    async def poll(self) -> list[Sample]:
        """One sample of every metric.

        Raises:
            SensorError: it failed; what it brought all the same is in the error.
        """

    async def close(self) -> None:
        """Let go of the connection or the file."""


def bad(metrics: tuple[MetricSpec, ...], mono_ms: int) -> list[Sample]:
    """A bad sample of every metric: that there is no value is told too."""
    return [Sample(metric, None, Quality.BAD, mono_ms) for metric in metrics]
