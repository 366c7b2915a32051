"""Collects records and cuts them into drafts of batches; pure but for the clock that it is given.

Records arrive with the monotonic time at which they happened. A draft's base is the instant at
which it is cut, on both clocks, so that a clock that was set in between dates them right; the
records' times are offsets from it. A draft has no number yet: the spool gives it in the same
transaction that stores it.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from edge_agent.clock import Clock
from edge_agent.sensors.base import MetricSpec, Sample
from fleet_protocol.messages import (
    LAST_WALL_MS,
    MAX_PAYLOAD,
    MAX_RECORDS,
    Event,
    Events,
    Inference,
    Metric,
    Quality,
    Reading,
    Stream,
    Telemetry,
    TimeBase,
    encode,
)
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

MAX_WEIGHT: Final = MAX_PAYLOAD * 3 // 8
"""Bytes of records in one draft; the rest holds the definitions of every metric that an agent may have."""

_READING_WEIGHT: Final = 23
"""Bytes at most: array 1, metric 3, offset 9, value 9, quality 1."""

_LONGEST_OFFSET: Final = 9
_ENCODER: Final = msgspec.msgpack.Encoder()
_INFERENCES: Final = msgspec.msgpack.Decoder(Inference)
_EVENTS: Final = msgspec.msgpack.Decoder(Event)
_Decoder = msgspec.msgpack.Decoder[Inference] | msgspec.msgpack.Decoder[Event]

Write = Callable[[str, int, list[Metric]], bytes]
"""From epoch, number and the definitions that are new in the epoch to the payload."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that only lacks its number; ``metrics`` are the definitions that its records use."""

    stream: Stream
    records: int
    oldest_wall_ms: int
    newest_wall_ms: int
    metrics: tuple[Metric, ...]
    write: Write


@dataclass(slots=True)
class _Open:
    """The records of one stream that wait to be cut, each with its monotonic time."""

    readings: list[tuple[int, int, float | None, Quality]] = field(default_factory=list)
    inferences: list[tuple[int, Inference]] = field(default_factory=list)
    events: list[tuple[int, Event]] = field(default_factory=list)
    weight: int = 0

    @property
    def records(self) -> int:
        return len(self.readings) + len(self.inferences) + len(self.events)

    def span(self) -> tuple[int, int]:
        """Monotonic ms of the oldest and the newest record."""
        times = [at for at, *_reading in self.readings]
        times += [at for at, _record in (*self.inferences, *self.events)]
        return min(times), max(times)


class Batcher:
    """Gathers samples, inferences and events until they are cut."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ids: dict[MetricSpec, Metric] = {}
        self._definitions: list[Metric] = []
        self._open = {stream: _Open() for stream in Stream}
        self._sealed: list[Draft] = []

    @property
    def full(self) -> bool:
        """Whether a whole draft waits already: time to cut, whatever the interval says."""
        return bool(self._sealed)

    def add_samples(self, samples: Sequence[Sample]) -> None:
        """Samples of sensors; a value that is no finite number is told as a bad one."""
        for sample in samples:
            value, quality = sample.value, sample.quality
            if value is None or not math.isfinite(value):
                value, quality = None, Quality.BAD
            waiting = self._room(Stream.TELEMETRY, _READING_WEIGHT)
            waiting.readings.append((sample.mono_ms, self._id(sample.metric), value, quality))

    def add_inferences(self, inferences: Sequence[Inference], mono_ms: int) -> None:
        """Answers of models; their offsets count from ``mono_ms``."""
        for inference in inferences:
            weight = _checked(_INFERENCES, inference, (inference.score, inference.confidence))
            if weight:
                waiting = self._room(Stream.TELEMETRY, weight)
                waiting.inferences.append((mono_ms + inference.offset_ms, inference))

    def add_events(self, events: Sequence[Event], mono_ms: int) -> None:
        """Events; their offsets count from ``mono_ms``."""
        for event in events:
            weight = _checked(_EVENTS, event, event.values.values())
            if weight:
                waiting = self._room(Stream.EVENT, weight)
                waiting.events.append((mono_ms + event.offset_ms, event))

    def cut(self) -> list[Draft]:
        """Everything that waits, as drafts; nothing waits afterwards."""
        for stream in Stream:
            self._seal(stream)
        drafts, self._sealed = self._sealed, []
        return drafts

    def _id(self, spec: MetricSpec) -> int:
        known = self._ids.get(spec)
        if known is None:
            known = Metric(len(self._definitions), spec.name, spec.unit, spec.kind)
            self._ids[spec] = known
            self._definitions.append(known)
        return known.id

    def _room(self, stream: Stream, weight: int) -> _Open:
        waiting = self._open[stream]
        if waiting.records >= MAX_RECORDS or waiting.weight + weight > MAX_WEIGHT:
            self._seal(stream)
            waiting = self._open[stream]
        waiting.weight += weight
        return waiting

    def _seal(self, stream: Stream) -> None:
        waiting = self._open[stream]
        if not waiting.records:
            return
        self._open[stream] = _Open()
        base = self._clock.now()
        oldest, newest = waiting.span()
        used = sorted({metric for _at, metric, _value, _quality in waiting.readings})
        draft = Draft(
            stream=stream,
            records=waiting.records,
            oldest_wall_ms=_wall(base, oldest),
            newest_wall_ms=_wall(base, newest),
            metrics=tuple(self._definitions[number] for number in used),
            write=_telemetry(waiting, base) if stream is Stream.TELEMETRY else _events(waiting, base),
        )
        self._sealed.append(draft)


def _checked(decoder: "_Decoder", record: Inference | Event, values: Iterable[float]) -> int:
    """The encoded length of ``record``; 0, and a line in the log, if no server would take it.

    A batch that the server refuses is never acknowledged and would block its stream for ever.
    """
    encoded = _ENCODER.encode(record)
    try:
        decoder.decode(encoded)
    except msgspec.MsgspecError as error:
        _LOG.error(
            _("left out, no message could carry it: {record} ({reason})").format(record=record, reason=error)
        )
        return 0
    if not all(map(math.isfinite, values)):
        _LOG.error(_("left out, a figure is no finite number: {record}").format(record=record))
        return 0
    return len(encoded) + _LONGEST_OFFSET


def _wall(base: TimeBase, mono_ms: int) -> int:
    return min(max(base.wall_ms + mono_ms - base.mono_ms, 0), LAST_WALL_MS)


def _telemetry(waiting: _Open, base: TimeBase) -> Write:
    start = base.mono_ms
    readings = [
        Reading(metric, at - start, value, quality) for at, metric, value, quality in waiting.readings
    ]
    inferences = [replace(inference, offset_ms=at - start) for at, inference in waiting.inferences]

    def write(epoch: str, seq: int, definitions: list[Metric]) -> bytes:
        return encode(Telemetry(epoch, seq, base, definitions, readings, inferences))

    return write


def _events(waiting: _Open, base: TimeBase) -> Write:
    events = [replace(event, offset_ms=at - base.mono_ms) for at, event in waiting.events]

    def write(epoch: str, seq: int, definitions: list[Metric]) -> bytes:  # noqa: ARG001 - events define nothing
        return encode(Events(epoch, seq, base, events))

    return write
