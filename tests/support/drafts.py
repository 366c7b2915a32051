"""Small drafts of batches, and a clock that a test turns by hand."""

from edge_agent.clock import BUILD_MS, Clock
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.telemetry.batcher import Batcher, Draft
from fleet_protocol.messages import Event, MetricKind, Quality, Severity

FLOW = MetricSpec("flow", "l/s", MetricKind.GAUGE)
PRESSURE = MetricSpec("pressure", "m", MetricKind.GAUGE)
BOOT = "00c0ffee00c0ffee"


class HandClock(Clock):
    """A clock that stands still until it is moved; starts well after the build."""

    def __init__(self, wall_ms: int = BUILD_MS + 86_400_000, mono_ms: int = 1_000_000) -> None:
        self.wall = wall_ms
        self.mono = mono_ms
        super().__init__(BOOT, wall_ns=lambda: self.wall * 1_000_000, mono_ns=lambda: self.mono * 1_000_000)

    def advance(self, ms: int) -> None:
        self.wall += ms
        self.mono += ms


def telemetry(
    records: int = 1, *, metric: MetricSpec = FLOW, value: float = 1.5, batcher: Batcher | None = None
) -> Draft:
    """A draft of ``records`` readings."""
    batcher = batcher or Batcher(HandClock())
    batcher.add_samples([Sample(metric, value, Quality.GOOD, 1_000_000)] * records)
    return batcher.cut()[0]


def event(text: str = "leak", *, batcher: Batcher | None = None) -> Draft:
    """A draft of one event."""
    batcher = batcher or Batcher(HandClock())
    batcher.add_events([Event(0, "leak", Severity.WARNING, text, "test", {"score": 0.9})], 1_000_000)
    return batcher.cut()[0]
