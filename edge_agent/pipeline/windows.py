"""Samples of any rhythm become windows on a model's grid of steps.

A bucket is one step of the grid: its value is the mean of the good samples in it. A bucket without
one holds the value before, a few times; then the window starts anew, because a model must not be
asked about what nobody measured.

The grid is laid by the first sample, so that a sensor read once a step gives every bucket its one
sample; see :data:`PHASE`.
"""

# ruff: noqa: SLF001 - a successor looks into its predecessor, which is of its own class

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from edge_agent.pipeline.memory import (
    FLOAT32_BYTES,
    MAX_HELD,
    Layout,
    MetricMemory,
    WindowsMemory,
    beyond,
    refit,
)
from edge_agent.sensors.base import Sample
from fleet_protocol.manifest import Feature
from fleet_protocol.messages import Quality
from fleet_protocol.texts import _

PHASE: Final = 0.75
"""Where in its bucket the first sample lies. A sensor read once a step may then be up to a quarter
of a step late and still meet its own bucket, and the answer waits only that quarter for it."""

_MS_PER_S: Final = 1000.0

_LARGEST: Final = 3.4028234663852886e38
"""What float32 can hold; a larger sample is no measurement."""


class Due(NamedTuple):
    """Full windows at the end of one bucket."""

    bucket: int
    """Its number; the next one's is one higher unless windows were missed between."""

    windows: Sequence[memoryview]
    """One a feature, float32, oldest first; valid until the next bucket is closed."""

    latest: Sequence[float]
    """The bucket's value of each of :attr:`Windows.metrics`."""

    end_ms: float
    """When the bucket ended, on the monotonic clock."""


class _Ring:
    """The last values of one feature, as one piece of memory however often they turn around.

    Every value is written twice, a window apart, so that the window always lies in one piece and
    nobody copies it.
    """

    def __init__(self, length: int) -> None:
        self._length: Final = length
        self._values: Final = array("f", bytes(8 * length))
        self._view: Final = memoryview(self._values)
        self._next = 0
        self._count = 0
        self.full = False

    def window(self) -> memoryview:
        return self._view[self._next : self._next + self._length]

    def push(self, value: float) -> None:
        place, length = self._next, self._length
        self._values[place] = self._values[place + length] = value
        self._next = place + 1 if place + 1 < length else 0
        if not self.full:
            self._count += 1
            self.full = self._count == length

    def clear(self) -> None:
        self._next = self._count = 0
        self.full = False

    def values(self) -> bytes:
        """What it holds, oldest first; before it has turned around that is all up to the next place."""
        held = self.window() if self.full else self._view[: self._next]
        return held.tobytes()

    def refill(self, values: bytes) -> None:
        self.clear()
        for value in array("f", values)[-self._length :]:
            self.push(value)


class _Metric:
    """The open bucket of one metric, and the rings that its closed buckets go into."""

    def __init__(self) -> None:
        self.rings: list[_Ring] = []
        self.latest = math.nan
        self._sum = 0.0
        self._samples = 0
        self._held = MAX_HELD

    def add(self, value: float) -> None:
        self._sum += value
        self._samples += 1

    def take_open(self, other: "_Metric") -> None:
        """Go on with the open bucket of ``other``."""
        self._sum, self._samples = other._sum, other._samples

    def memory(self) -> MetricMemory:
        return MetricMemory(self.latest, self._held)

    def restore(self, memory: MetricMemory) -> None:
        self.latest, self._held = memory.latest, memory.held

    def close(self) -> bool:
        """Close the bucket; whether it had nothing, and nothing is left to hold."""
        if self._samples:
            self.latest = self._sum / self._samples
            self._sum, self._samples, self._held = 0.0, 0, 0
        elif self._held < MAX_HELD:
            self._held += 1
        else:
            for ring in self.rings:
                ring.clear()
            return True
        for ring in self.rings:
            ring.push(self.latest)
        return False


class Windows:
    """The windows of one model. Close what is over, then add: ``while behind: close``, ``add``."""

    def __init__(self, features: Sequence[Feature], step_s: float, time_factor: float = 1.0) -> None:
        """Prepare for ``features`` in steps of ``step_s`` s, in a world ``time_factor`` times as fast."""
        self._features: Final = features
        self._step_s: Final = step_s
        self._step_ms: Final = step_s * _MS_PER_S / time_factor
        self._rings: Final = [_Ring(feature.window) for feature in features]
        self._metrics: Final[dict[str, _Metric]] = {}
        for feature, ring in zip(features, self._rings, strict=True):
            self._metrics.setdefault(feature.metric, _Metric()).rings.append(ring)
        self.metrics: Final = tuple(self._metrics)
        """The metrics that it needs, each once."""
        self._kept: Final[dict[str, _Ring]] = {}
        """What a version before looked further back to, by metric: should that one come back, it can see."""
        self._bucket = 0
        self._start_ms = math.inf
        """Where the open bucket begins; nowhere before the first sample."""
        self._end_ms = math.inf

    def behind(self, mono_ms: int) -> bool:
        """Whether a bucket that ended by ``mono_ms`` is still open."""
        return mono_ms >= self._end_ms

    def take(self, samples: Iterable[Sample], mono_ms: int) -> Iterator[Due]:
        """Take ``samples``, read up to ``mono_ms``; what falls due on the way, one bucket at a time."""
        for sample in samples:
            name, value = sample.metric.name, sample.value
            if sample.quality is Quality.GOOD and value is not None and name in self._metrics:
                yield from self._catch_up(sample.mono_ms)
                self.add(name, value, sample.mono_ms)
        yield from self._catch_up(mono_ms)

    def _catch_up(self, until_ms: int) -> Iterator[Due]:
        while self.behind(until_ms):
            due = self.close(until_ms)
            if due is not None:
                yield due

    def close(self, mono_ms: int) -> Due | None:
        """Close the open bucket, and after a long silence all up to ``mono_ms``; what fell due by it."""
        due = self._bucket
        skipped = 1
        silent = True
        for metric in self._metrics.values():
            silent &= metric.close()
        if silent:
            skipped = int((mono_ms - self._start_ms) // self._step_ms)
        self._bucket += skipped
        self._start_ms += skipped * self._step_ms
        self._end_ms = self._start_ms + self._step_ms
        for ring in self._rings:
            if not ring.full:
                return None
        latest = [metric.latest for metric in self._metrics.values()]
        return Due(due, [ring.window() for ring in self._rings], latest, self._start_ms)

    def add(self, metric: str, value: float, mono_ms: int) -> None:
        """Take one good sample; one that is no float32, or whose bucket is closed, is left out."""
        if not -_LARGEST <= value <= _LARGEST:
            return
        if self._end_ms == math.inf:
            self._start_ms = mono_ms - PHASE * self._step_ms
            self._end_ms = self._start_ms + self._step_ms
        if mono_ms >= self._start_ms:
            self._metrics[metric].add(value)

    def memory(self) -> WindowsMemory | None:
        """The grid and what is closed; nothing before the first sample."""
        if self._end_ms == math.inf:
            return None
        return WindowsMemory(
            self._start_ms,
            self._bucket,
            [ring.values() for ring in (*self._rings, *self._kept.values())],
            [metric.memory() for metric in self._metrics.values()],
        )

    @property
    def layout(self) -> Layout:
        """What the rings of its memory hold."""
        return Layout(self._step_s, [*(feature.metric for feature in self._features), *self._kept])

    def succeed(self, before: "Windows") -> None:
        """Go on in the middle of a bucket where ``before`` is, as far as what it has fits."""
        memory = before.memory()
        if memory is None or not self.restore_other(memory, before.layout, 0):
            return
        for name, metric in self._metrics.items():
            if name in before._metrics:
                metric.take_open(before._metrics[name])

    def restore_other(self, memory: WindowsMemory, layout: Layout, shift_ms: int) -> bool:
        """Go on where windows of other features left off; whether anything fits.

        Raises:
            ValueError: ``memory`` is not of ``layout``.
        """
        fitting = refit(memory, layout, self._step_s, self._features)
        if fitting is None:
            return False
        self.restore(fitting, shift_ms)
        for metric, values in beyond(memory, layout, self._features).items():
            self._keep(metric, values)
        return True

    def restore(self, memory: WindowsMemory, shift_ms: int) -> None:
        """Go on where windows of the same features left off; what was in the open bucket is gone.

        The buckets since then are closed by the next sample, like any silence.

        Raises:
            ValueError: it is not of these features.
        """
        fits = len(memory.rings) == len(self._rings) and len(memory.metrics) == len(self._metrics)
        if not fits or any(len(values) % FLOAT32_BYTES for values in memory.rings):
            raise ValueError(_("it remembers windows of other features"))
        self._end_ms = memory.start_ms + shift_ms + self._step_ms
        self._start_ms = memory.start_ms + shift_ms
        self._bucket = memory.bucket
        for ring, values in zip(self._rings, memory.rings, strict=True):
            ring.refill(values)
        for metric, remembered in zip(self._metrics.values(), memory.metrics, strict=True):
            metric.restore(remembered)

    def _keep(self, metric: str, values: bytes) -> None:
        ring = _Ring(len(values) // FLOAT32_BYTES)
        ring.refill(values)
        self._kept[metric] = ring
        self._metrics[metric].rings.append(ring)
