"""What was measured and concluded last, kept in memory for whoever stands at the cabinet.

Bounded in every direction, and never asked by the agent itself: the record is the spool.
"""

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edge_agent.sensors.base import MetricSpec, Sample
from fleet_protocol.messages import Event, Inference, Quality

HISTORY: Final = 120
"""Values of one metric: as many as a line of a terminal has columns."""

EVENTS: Final = 100
"""Events that are remembered."""

_MODELS: Final = 64
"""As many as one report names."""

_NO_VALUE: Final = float("nan")


class NewestValue(msgspec.Struct, frozen=True, kw_only=True):
    """The newest reading of one metric; no value where it is bad."""

    metric: str
    unit: str
    value: float | None
    quality: Quality
    age_ms: int


class NewestInference(msgspec.Struct, frozen=True, kw_only=True):
    """The newest answer of one model."""

    model: str
    version: str
    label: str
    score: float
    confidence: float
    latency_us: int
    uncertain: bool
    age_ms: int


class RecentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event that a policy or the agent raised."""

    name: str
    severity: int
    text: str
    source: str
    age_ms: int


@dataclass(slots=True)
class _Track:
    """One metric: its newest sample, and its values, oldest first, in eight bytes each."""

    newest: Sample
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, sample: Sample) -> None:
        self.newest = sample
        self.values.append(_NO_VALUE if sample.value is None else sample.value)
        del self.values[:-HISTORY]


class Recent:
    """The newest values with a short history, the newest answer of each model, the last events."""

    def __init__(self) -> None:
        self._tracks: dict[MetricSpec, _Track] = {}
        self._inferences: dict[str, tuple[int, Inference]] = {}
        self._events: deque[tuple[int, Event]] = deque(maxlen=EVENTS)

    def see(self, samples: Iterable[Sample]) -> None:
        """Remember ``samples``."""
        for sample in samples:
            track = self._tracks.get(sample.metric)
            if track is None:
                track = self._tracks[sample.metric] = _Track(sample)
            track.add(sample)

    def conclude(self, inferences: Iterable[Inference], events: Iterable[Event], mono_ms: int) -> None:
        """Remember what came of them; ``mono_ms`` is what the records' offsets count from.

        An answer in shadow is not the device's: how it compares is in the report.
        """
        for inference in inferences:
            if inference.shadow:
                continue
            self._inferences.pop(inference.model, None)
            self._inferences[inference.model] = (mono_ms + inference.offset_ms, inference)
        while len(self._inferences) > _MODELS:
            del self._inferences[next(iter(self._inferences))]
        self._events.extend((mono_ms + event.offset_ms, event) for event in events)

    def values(self, mono_ms: int) -> list[NewestValue]:
        """The newest value of each metric, by name, with its age at ``mono_ms``."""
        return [
            NewestValue(
                metric=metric.name,
                unit=metric.unit,
                value=track.newest.value,
                quality=track.newest.quality,
                age_ms=max(0, mono_ms - track.newest.mono_ms),
            )
            for metric, track in sorted(self._tracks.items(), key=lambda item: item[0].name)
        ]

    def history(self) -> dict[str, list[float]]:
        """The last values of each metric, oldest first; no number where one was bad."""
        return {metric.name: track.values.tolist() for metric, track in self._tracks.items()}

    def inferences(self, mono_ms: int) -> list[NewestInference]:
        """The newest answer of each model, by name, with its age at ``mono_ms``."""
        return [
            NewestInference(
                model=each.model,
                version=each.version,
                label=each.label,
                score=each.score,
                confidence=each.confidence,
                latency_us=each.latency_us,
                uncertain=each.uncertain,
                age_ms=max(0, mono_ms - at),
            )
            for _model, (at, each) in sorted(self._inferences.items())
        ]

    def events(self, mono_ms: int) -> list[RecentEvent]:
        """The last events, oldest first, with their age at ``mono_ms``."""
        return [
            RecentEvent(
                name=each.name,
                severity=each.severity,
                text=each.text,
                source=each.source,
                age_ms=max(0, mono_ms - at),
            )
            for at, each in self._events
        ]
