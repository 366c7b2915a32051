"""Commits what was received: many messages, one transaction, and the cursors moved in it.

For every batch the question is asked under the lock of its flow's cursor row, so the answer holds
for a second ingest and after a restart too: are these numbers committed already? What is new is
written beside the moved cursor, and both are durable or neither. Nobody is told anything before
:meth:`Store.commit` has returned.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from sqlalchemy import Engine

from fleet_protocol.messages import Batch, Events, Gap, Mark, Status, Stream, Telemetry
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel
from fleet_server.database.models import TwinHalf
from fleet_server.link.mqtt import Arrival
from fleet_server.telemetry.admission import Admitted, Refusal, admit
from fleet_server.telemetry.faults import is_of_message, open_writer, unavailable
from fleet_server.telemetry.placing import place
from fleet_server.telemetry.rows import (
    BATCH,
    EVENT,
    GAP,
    INFERENCE,
    READING,
    Origin,
    Row,
    event_rows,
    gap_row,
    inference_rows,
    reading_rows,
)
from fleet_server.telemetry.sequence import Flow, Range
from fleet_server.telemetry.writer import Cursor, EpochKey, FlowKey, Tally, Writer

KEPT_REFUSALS: Final = 1000
"""Refused messages kept for support, of all devices together."""

HEAD_BYTES: Final = 256
"""How much of a refused payload is kept."""

CACHED_EPOCHS: Final = 20_000
"""Epochs whose metric numbers are remembered; about a kilobyte each."""

_STREAMS: Final = {Channel.TELEMETRY: Stream.TELEMETRY, Channel.EVENT: Stream.EVENT}
_HALVES: Final = {Channel.STATUS: TwinHalf.STATUS, Channel.REPORTED: TwinHalf.REPORTED}


@dataclass(slots=True)
class Outcome:
    """What became of some messages; ``marks`` are the acknowledgements due to each device."""

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    postponed: int = 0
    refused: int = 0

    def add(self, other: "Outcome") -> None:
        """Count another transaction's outcome in, the later one."""
        for device, marks in other.marks.items():
            merged = {(mark.epoch, mark.stream): mark for mark in [*self.marks.get(device, ()), *marks]}
            self.marks[device] = list(merged.values())
        self.stored += other.stored
        self.duplicates += other.duplicates
        self.postponed += other.postponed
        self.refused += other.refused


class Store:
    """The only writer of telemetry; one a process, not shared between threads."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine: Final = engine
        self._clock: Final = clock
        self._writer: Writer | None = None
        self._bound: dict[EpochKey, dict[int, int]] = {}

    def commit(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Make durable what ``arrivals`` bring; refuse what is no message.

        A message that the database cannot hold is found by halving, and refused alone.

        Raises:
            StoreError: the database cannot be written now; nothing was, try again later.
        """
        judged = [admit(arrival) for arrival in arrivals]
        refusals = [one for one in judged if isinstance(one, Refusal)]
        admitted = [one for one in judged if isinstance(one, Admitted)]
        return self._commit(admitted, refusals)

    def close(self) -> None:
        """Give the connection up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _commit(self, admitted: list[Admitted], refusals: list[Refusal]) -> Outcome:
        try:
            return self._transact(admitted, refusals)
        except Exception as error:
            if not is_of_message(error):
                raise
            if len(admitted) == 1:
                reason = _("cannot be stored: {reason}").format(reason=error)
                return self._commit([], [*refusals, Refusal(admitted[0].arrival, admitted[0].device, reason)])
            if not admitted:
                raise
        half = len(admitted) // 2
        outcome = self._commit(admitted[:half], refusals)
        outcome.add(self._commit(admitted[half:], []))
        return outcome

    def _transact(self, admitted: list[Admitted], refusals: list[Refusal]) -> Outcome:
        with unavailable():
            try:
                if self._writer is None:
                    self._writer = open_writer(self._engine)
                transaction = _Transaction(self._writer, int(self._clock() * 1000), self._bound)
                self._writer.begin()
                transaction.write(admitted, refusals)
                self._writer.commit()
            except BaseException as error:
                if self._writer is not None:
                    self._writer.rollback()
                if not is_of_message(error):
                    self.close()
                raise
        self._remember(transaction.bound)
        return transaction.outcome

    def _remember(self, bound: dict[EpochKey, dict[int, int]]) -> None:
        self._bound.update(bound)
        while len(self._bound) > CACHED_EPOCHS:
            self._bound.pop(next(iter(self._bound)))


class _Transaction:
    """One transaction's reading, deciding and writing."""

    def __init__(self, writer: Writer, now_ms: int, cached: dict[EpochKey, dict[int, int]]) -> None:
        self._writer = writer
        self._now_ms = now_ms
        self._cached = cached
        self.bound: dict[EpochKey, dict[int, int]] = {}
        self.outcome = Outcome()
        self._batches: list[Row] = []
        self._readings: list[Row] = []
        self._inferences: list[Row] = []
        self._events: list[Row] = []
        self._gaps: list[Row] = []
        self._tallies: dict[int, Tally] = {}
        self._refusals: list[Refusal] = []

    def write(self, admitted: list[Admitted], refusals: list[Refusal]) -> None:
        """Decide about every message and write what follows; the caller begins and commits."""
        tenants = self._writer.tenants(
            {one.device for one in admitted} | {one.device for one in refusals if one.device}
        )
        self._refusals += refusals
        known = [one for one in admitted if self._is_known(one, tenants)]
        batches = [one for one in known if one.channel in _STREAMS]
        # In order of their numbers, so that a definition stands before what uses it.
        batches.sort(key=_first)
        if batches:
            self._take_batches(batches, tenants)
        self._note_devices(known, tenants)
        self._note_refusals(tenants)

    def _is_known(self, one: Admitted, tenants: dict[str, str]) -> bool:
        if one.device in tenants:
            return True
        self._refusals.append(Refusal(one.arrival, one.device, _("the device is not registered")))
        return False

    def _take_batches(self, batches: list[Admitted], tenants: dict[str, str]) -> None:
        keys = [_key(one, tenants[one.device]) for one in batches]
        cursors = self._writer.lock_cursors(set(keys), self._now_ms)
        before = {key: (cursor.flow.contiguous, list(cursor.flow.ahead)) for key, cursor in cursors.items()}
        self._look_up_metrics({EpochKey(*key[:3]) for key in keys})
        for one, key in zip(batches, keys, strict=True):
            self._take(one, key, cursors[key])
        self._append_rows()
        self._move(cursors, before)

    def _look_up_metrics(self, epochs: set[EpochKey]) -> None:
        unknown = {epoch for epoch in epochs if epoch not in self._cached}
        self.bound = {epoch: self._cached[epoch] for epoch in epochs - unknown}
        if unknown:
            self.bound |= self._writer.bindings(unknown)

    def _take(self, one: Admitted, key: FlowKey, cursor: Cursor) -> None:
        batch = _batch(one)
        lost = cursor.flow.missing(batch.first, batch.seq)
        if not lost:
            self.outcome.duplicates += 1
        elif not cursor.flow.has_room(batch.first):
            self.outcome.postponed += 1
        elif not self._learn(EpochKey(*key[:3]), one, batch):
            self._refusals.append(
                Refusal(one.arrival, one.device, _("a metric's number is given a second meaning"))
            )
        elif not self._collect(one, key, cursor.id, lost):
            self.outcome.postponed += 1
        else:
            cursor.flow.commit(batch.first, batch.seq)
            self.outcome.stored += 1

    def _learn(self, epoch: EpochKey, one: Admitted, batch: Batch) -> bool:
        """Take in the definitions that ``batch`` carries; whether they agree with what is known."""
        if isinstance(batch, Events) or not batch.metrics or one.channel is not Channel.TELEMETRY:
            return True
        known = self.bound[epoch]
        named = self._writer.name_metrics(epoch, batch.metrics)
        if any(known.get(number, metric) != metric for number, metric in named) or (
            len({number for number, _metric in named}) < len(set(named))
        ):
            return False
        new = {number: metric for number, metric in named if number not in known}
        self._writer.bind(epoch, new)
        self.bound[epoch] = known | new
        return True

    def _collect(self, one: Admitted, key: FlowKey, cursor: int, lost: list[Range]) -> bool:
        """Build the rows of one batch; whether every metric in it is known."""
        batch, received_ms = _batch(one), one.arrival.received_ms
        if isinstance(batch, Gap):
            self._gaps.append(gap_row(key.tenant, key.device, cursor, batch, lost, received_ms))
            self._count(cursor)
            return True
        placed = place(batch.base, received_ms, one.sent)
        origin = Origin(key.tenant, key.device, cursor, batch.seq, placed)
        if isinstance(batch, Events):
            self._events += event_rows(origin, batch)
            self._count(cursor, events=len(batch.events))
        else:
            try:
                self._readings += reading_rows(origin, batch, self.bound[EpochKey(*key[:3])])
            except KeyError:
                return False
            self._inferences += inference_rows(origin, batch)
            self._count(cursor, len(batch.readings), len(batch.inferences))
        self._batches.append((key.tenant, cursor, batch.seq, received_ms, self._now_ms))
        return True

    def _count(self, cursor: int, readings: int = 0, inferences: int = 0, events: int = 0) -> None:
        so_far = self._tallies.get(cursor, Tally())
        self._tallies[cursor] = Tally(
            so_far.readings + readings, so_far.inferences + inferences, so_far.events + events
        )

    def _append_rows(self) -> None:
        for table, columns, rows in (
            ("batch", BATCH, self._batches),
            ("reading", READING, self._readings),
            ("inference", INFERENCE, self._inferences),
            ("event", EVENT, self._events),
            ("gap", GAP, self._gaps),
        ):
            if rows:
                self._writer.append(table, columns, rows)

    def _move(self, cursors: dict[FlowKey, Cursor], before: dict[FlowKey, tuple[int, list[Range]]]) -> None:
        moved: list[tuple[int, int, Tally]] = []
        dropped: list[tuple[int, Range]] = []
        added: list[tuple[str, int, Range]] = []
        for key, (number, flow) in sorted(cursors.items()):
            contiguous, ahead = before[key]
            if flow.contiguous != contiguous or number in self._tallies:
                moved.append((number, flow.contiguous, self._tallies.get(number, Tally())))
            if flow.ahead != ahead:
                dropped += [(number, part) for part in ahead if part not in flow.ahead]
                added += [(key.tenant, number, part) for part in flow.ahead if part not in ahead]
            self._acknowledge(key, flow)
        self._writer.move_cursors(moved, self._now_ms)
        self._writer.change_pending(dropped, added)

    def _acknowledge(self, key: FlowKey, flow: Flow) -> None:
        mark = Mark(key.epoch, Stream(key.stream), flow.contiguous)
        self.outcome.marks.setdefault(key.device, []).append(mark)

    def _note_devices(self, known: list[Admitted], tenants: dict[str, str]) -> None:
        heard: dict[tuple[str, str], int] = {}
        twins: dict[tuple[str, str, str], tuple[int, str]] = {}
        for one in known:
            who, when = (tenants[one.device], one.device), one.arrival.received_ms
            if half := _HALVES.get(one.channel):
                twins[*who, half.value] = (when, msgspec.json.encode(one.message).decode())
            # The broker speaks a last will; the device itself was not heard.
            if not (isinstance(one.message, Status) and not one.message.online):
                heard[who] = max(when, heard.get(who, 0))
        self._writer.heard(heard)
        self._writer.twins(twins)

    def _note_refusals(self, tenants: dict[str, str]) -> None:
        if not self._refusals:
            return
        self.outcome.refused += len(self._refusals)
        counts: dict[tuple[str, str], tuple[int, int, str]] = {}
        for one in self._refusals:
            who = (tenants[one.device], one.device) if one.device in tenants else ("", "")
            count = counts.get(who, (0, 0, ""))[0] + 1
            counts[who] = (count, one.arrival.received_ms, _storable(one.reason, 300))
        kept = [_kept(one, tenants) for one in self._refusals[-KEPT_REFUSALS:]]
        self._writer.refuse([(*who, *what) for who, what in counts.items()], kept, KEPT_REFUSALS)


def _batch(one: Admitted) -> Batch:
    assert isinstance(one.message, (Telemetry, Events, Gap))  # noqa: S101 - the channel's decoder says so
    return one.message


def _first(one: Admitted) -> int:
    return _batch(one).first


def _key(one: Admitted, tenant: str) -> FlowKey:
    return FlowKey(tenant, one.device, _batch(one).epoch, _STREAMS[one.channel].value)


def _kept(one: Refusal, tenants: dict[str, str]) -> Row:
    arrival = one.arrival
    head = arrival.payload[:HEAD_BYTES].hex()
    return (
        tenants.get(one.device, ""),
        one.device,
        _storable(arrival.topic, 200),
        arrival.received_ms,
        _storable(one.reason, 300),
        len(arrival.payload),
        head,
    )


def _storable(text: str, length: int) -> str:
    """``text`` without what a database cannot hold: PostgreSQL takes no NUL, neither takes half a pair."""
    return text[:length].encode("utf-8", "replace").decode().replace("\0", "")
