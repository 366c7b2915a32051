"""Samples of any rhythm become windows on a model's grid of steps.

A bucket is one step of the grid: its value is the mean of the good samples in it. A bucket without
one holds the value before, a few times; then the window starts anew, because a model must not be
asked about what nobody measured.

The grid is laid by the first sample, so that a sensor read once a step gives every bucket its one
sample; see :data:`PHASE`.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fleet_protocol.manifest import Feature

MAX_HELD: Final = 4
"""Buckets in a row that hold an old value; one lost poll or three are no reason to start anew."""

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

    latest: dict[str, float]
    """The bucket's value of each metric."""


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

    @property
    def full(self) -> bool:
        return self._count == self._length

    @property
    def window(self) -> memoryview:
        return self._view[self._next : self._next + self._length]

    def push(self, value: float) -> None:
        place, length = self._next, self._length
        self._values[place] = self._values[place + length] = value
        self._next = place + 1 if place + 1 < length else 0
        if self._count < length:
            self._count += 1

    def clear(self) -> None:
        self._next = self._count = 0


class _Metric:
    """The open bucket of one metric, and the rings that its closed buckets go into."""

    def __init__(self) -> None:
        self.rings: list[_Ring] = []
        self.latest = math.nan
        self._sum = 0.0
        self._samples = 0
        self._held = MAX_HELD

    @property
    def idle(self) -> bool:
        """Nothing to hold and nothing in the open bucket."""
        return self._samples == 0 and self._held >= MAX_HELD

    def add(self, value: float) -> None:
        self._sum += value
        self._samples += 1

    def close(self) -> None:
        if self._samples:
            self.latest = self._sum / self._samples
            self._sum, self._samples, self._held = 0.0, 0, 0
        elif self._held < MAX_HELD:
            self._held += 1
        else:
            for ring in self.rings:
                ring.clear()
            return
        for ring in self.rings:
            ring.push(self.latest)


class Windows:
    """The windows of one model."""

    def __init__(self, features: Sequence[Feature], step_s: float, time_factor: float = 1.0) -> None:
        """Prepare for ``features`` in steps of ``step_s`` s, in a world ``time_factor`` times as fast."""
        self._step_ms: Final = step_s * _MS_PER_S / time_factor
        self._metrics: Final[dict[str, _Metric]] = {}
        self._rings: Final = []
        for feature in features:
            ring = _Ring(feature.window)
            self._rings.append(ring)
            self._metrics.setdefault(feature.metric, _Metric()).rings.append(ring)
        self._origin_ms: float | None = None
        self._bucket = 0

    @property
    def metrics(self) -> frozenset[str]:
        """The metrics that it needs."""
        return frozenset(self._metrics)

    def add(self, metric: str, value: float, mono_ms: int) -> Iterator[Due]:
        """Take one good sample; gives what became due before it. Use it up, or it is not taken.

        A sample that comes after its bucket was closed is left out, one that is no float32 too.
        """
        if not abs(value) <= _LARGEST:
            return
        if self._origin_ms is None:
            self._origin_ms = mono_ms - PHASE * self._step_ms
        yield from self.advance(mono_ms)
        if self._number(mono_ms) == self._bucket:
            self._metrics[metric].add(value)

    def advance(self, mono_ms: int) -> Iterator[Due]:
        """Close the buckets that ended by ``mono_ms``; gives the windows that are full."""
        if self._origin_ms is None:
            return
        now = self._number(mono_ms)
        while self._bucket < now:
            if all(metric.idle for metric in self._metrics.values()):
                # Nothing but silence up to now, however long it was.
                self._close()
                self._bucket = now
                return
            self._close()
            self._bucket += 1
            if all(ring.full for ring in self._rings):
                yield self._due()

    def _number(self, mono_ms: int) -> int:
        return math.floor((mono_ms - (self._origin_ms or 0.0)) / self._step_ms)

    def _close(self) -> None:
        for metric in self._metrics.values():
            metric.close()

    def _due(self) -> Due:
        latest = {name: metric.latest for name, metric in self._metrics.items()}
        return Due(self._bucket, [ring.window for ring in self._rings], latest)
