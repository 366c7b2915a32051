"""One transaction of the store: what is known already, what follows from each message, what is written.

The hot path goes flow by flow: what the messages of one flow share is looked up once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

import msgspec

from fleet_protocol.messages import Batch, Events, Gap, Mark, Status, Stream, Telemetry
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel
from fleet_server.database.models import TwinHalf
from fleet_server.telemetry.admission import Admitted, Refusal
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
from fleet_server.telemetry.sequence import Range
from fleet_server.telemetry.writer import Cursor, EpochKey, FlowKey, Tally, Writer

KEPT_REFUSALS: Final = 1000
"""Refused messages kept for support, of all devices together."""

HEAD_BYTES: Final = 256
"""How much of a refused payload is kept."""

_STREAMS: Final = {Channel.TELEMETRY: Stream.TELEMETRY, Channel.EVENT: Stream.EVENT}
_HALVES: Final = {Channel.STATUS: TwinHalf.STATUS, Channel.REPORTED: TwinHalf.REPORTED}
_FIRST: Final = attrgetter("message.first")

Bound = dict[EpochKey, dict[int, int]]
"""What the metric numbers of each epoch stand for."""


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


class Transaction:
    """Reads, decides and writes; who uses it begins and commits.

    ``bound`` starts as what is known of the epochs, and holds afterwards what is true once this is
    committed; ``cached`` itself is not touched.
    """

    def __init__(self, writer: Writer, now_ms: int, cached: Mapping[EpochKey, dict[int, int]]) -> None:
        self._writer = writer
        self._now_ms = now_ms
        self._cached = cached
        self.bound: Bound = {}
        self.outcome = Outcome()
        self._rows: dict[str, list[Row]] = {
            "batch": [],
            "reading": [],
            "inference": [],
            "event": [],
            "gap": [],
        }
        self._tallies: dict[int, Tally] = {}
        self._refusals: list[Refusal] = []

    def write(self, admitted: list[Admitted], refusals: list[Refusal]) -> None:
        """Decide about every message and write what follows."""
        named = {one.device for one in admitted} | {one.device for one in refusals if one.device}
        tenants = self._writer.tenants(named)
        self._refusals += refusals
        known = [one for one in admitted if self._is_known(one, tenants)]
        flows: dict[FlowKey, list[Admitted]] = {}
        for one in known:
            message = one.message
            if isinstance(message, (Telemetry, Events, Gap)):
                key = FlowKey(tenants[one.device], one.device, message.epoch, _STREAMS[one.channel].value)
                flows.setdefault(key, []).append(one)
        if flows:
            self._take_flows(flows)
        self._note_devices(known, tenants)
        self._note_refusals(tenants)

    def _is_known(self, one: Admitted, tenants: dict[str, str]) -> bool:
        if one.device in tenants:
            return True
        self._refusals.append(Refusal(one.arrival, one.device, _("the device is not registered")))
        return False

    def _take_flows(self, flows: dict[FlowKey, list[Admitted]]) -> None:
        cursors = self._writer.lock_cursors(flows, self._now_ms)
        before = {key: (cursor.flow.contiguous, list(cursor.flow.ahead)) for key, cursor in cursors.items()}
        self._look_up_metrics({EpochKey(*key[:3]) for key in flows})
        for key, batches in flows.items():
            # In order of their numbers, so that a definition stands before what uses it.
            batches.sort(key=_FIRST)
            self._take_flow(key, cursors[key], batches)
        self._append_rows()
        self._move(cursors, before)

    def _look_up_metrics(self, epochs: set[EpochKey]) -> None:
        unknown = {epoch for epoch in epochs if epoch not in self._cached}
        self.bound = {epoch: self._cached[epoch] for epoch in epochs - unknown}
        if unknown:
            self.bound |= self._writer.bindings(unknown)

    def _take_flow(self, key: FlowKey, cursor: Cursor, batches: list[Admitted]) -> None:
        epoch = EpochKey(*key[:3])
        number, flow = cursor
        before = [len(self._rows[table]) for table in ("reading", "inference", "event")]
        for one in batches:
            batch = one.message
            assert isinstance(batch, (Telemetry, Events, Gap))  # noqa: S101 - only these make a flow
            first, last = batch.first, batch.seq
            lost = flow.missing(first, last)
            if not lost:
                self.outcome.duplicates += 1
            elif not flow.has_room(first):
                self.outcome.postponed += 1
            elif not self._learn(epoch, key.stream, batch):
                reason = _("a metric's number is given a second meaning")
                self._refusals.append(Refusal(one.arrival, one.device, reason))
            elif not self._collect(one, key, number, lost, self.bound[epoch]):
                self.outcome.postponed += 1
            else:
                flow.commit(first, last)
                self.outcome.stored += 1
        after = [len(self._rows[table]) for table in ("reading", "inference", "event")]
        self._tallies[number] = Tally(*(new - old for new, old in zip(after, before, strict=True)))

    def _learn(self, epoch: EpochKey, stream: str, batch: Batch) -> bool:
        """Take in the definitions that ``batch`` carries; whether they agree with what is known."""
        if isinstance(batch, Events) or not batch.metrics or stream != Stream.TELEMETRY.value:
            return True
        known = self.bound[epoch]
        named = self._writer.name_metrics(epoch, batch.metrics)
        meanings = Counter(number for number, _metric in set(named))
        if any(known.get(number, metric) != metric or meanings[number] > 1 for number, metric in named):
            return False
        new = {number: metric for number, metric in named if number not in known}
        self._writer.bind(epoch, new)
        self.bound[epoch] = known | new
        return True

    def _collect(
        self, one: Admitted, key: FlowKey, cursor: int, lost: list[Range], metrics: dict[int, int]
    ) -> bool:
        """Build the rows of one batch; whether ``metrics`` knows every one in it."""
        batch, received_ms, rows = one.message, one.arrival.received_ms, self._rows
        if isinstance(batch, Gap):
            rows["gap"].append(gap_row(key.tenant, key.device, cursor, batch, lost, received_ms))
            return True
        assert isinstance(batch, (Telemetry, Events))  # noqa: S101 - what else makes a flow is a gap
        origin = Origin(key.tenant, key.device, cursor, batch.seq, place(batch.base, received_ms, one.sent))
        if isinstance(batch, Events):
            rows["event"] += event_rows(origin, batch)
        else:
            try:
                rows["reading"] += reading_rows(origin, batch, metrics)
            except KeyError:
                return False
            if batch.inferences:
                rows["inference"] += inference_rows(origin, batch)
        rows["batch"].append((key.tenant, cursor, batch.seq, received_ms, self._now_ms))
        return True

    def _append_rows(self) -> None:
        columns = {"batch": BATCH, "reading": READING, "inference": INFERENCE, "event": EVENT, "gap": GAP}
        for table, rows in self._rows.items():
            if rows:
                self._writer.append(table, columns[table], rows)

    def _move(self, cursors: dict[FlowKey, Cursor], before: dict[FlowKey, tuple[int, list[Range]]]) -> None:
        moved: list[tuple[int, int, Tally]] = []
        dropped: list[tuple[int, Range]] = []
        added: list[tuple[str, int, Range]] = []
        for key, (number, flow) in sorted(cursors.items()):
            contiguous, ahead = before[key]
            if flow.contiguous != contiguous or flow.ahead != ahead:
                moved.append((number, flow.contiguous, self._tallies[number]))
                dropped += [(number, part) for part in ahead if part not in flow.ahead]
                added += [(key.tenant, number, part) for part in flow.ahead if part not in ahead]
            mark = Mark(key.epoch, Stream(key.stream), flow.contiguous)
            self.outcome.marks.setdefault(key.device, []).append(mark)
        self._writer.move_cursors(moved, self._now_ms)
        self._writer.change_pending(dropped, added)

    def _note_devices(self, known: list[Admitted], tenants: dict[str, str]) -> None:
        heard: dict[tuple[str, str], int] = {}
        twins: dict[tuple[str, str, str], tuple[int, str]] = {}
        for one in known:
            who, when = (tenants[one.device], one.device), one.arrival.received_ms
            if half := _HALVES.get(one.channel):
                twins[*who, half.value] = (when, msgspec.json.encode(one.message).decode())
            # The broker speaks a last will; the device itself was not heard.
            if not (isinstance(one.message, Status) and not one.message.online):
                heard[who] = when
        self._writer.heard(heard)
        if twins:
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
