"""What the store asks of a database inside one transaction; :mod:`.sqlite_writer`, :mod:`.postgres_writer`.

The statements are written once, with ``?`` for a value; only looking up many keys at once, bulk
insertion and the beginning of a transaction differ. A lookup takes its keys as one JSON array, so
that any number of them is one prepared statement and one round trip.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from fleet_protocol.messages import Metric
from fleet_server.telemetry.rows import Row
from fleet_server.telemetry.sequence import Flow, Range


class FlowKey(NamedTuple):
    """Which flow: a stream of one process of one device."""

    tenant: str
    device: str
    epoch: str
    stream: str


class EpochKey(NamedTuple):
    """One process of one device; a metric's number means the same throughout."""

    tenant: str
    device: str
    epoch: str


class Tally(NamedTuple):
    """How many rows of each kind."""

    readings: int = 0
    inferences: int = 0
    events: int = 0


class Cursor(NamedTuple):
    """A locked cursor row and the flow that it stands for."""

    id: int
    flow: Flow


class Lookups(NamedTuple):
    """The dialect's statements that find rows for a JSON array of keys."""

    devices: str
    cursors: str
    pending: str
    bindings: str
    metrics: str


_NEW_CURSOR: Final = (
    "INSERT INTO ingest_cursor (tenant, device, epoch, stream, contiguous, moved_ms, readings, inferences,"
    " events) VALUES (?, ?, ?, ?, 0, ?, 0, 0, 0) ON CONFLICT DO NOTHING"
)
_MOVE_CURSOR: Final = (
    "UPDATE ingest_cursor SET contiguous = ?, moved_ms = ?, readings = readings + ?,"
    " inferences = inferences + ?, events = events + ? WHERE id = ?"
)
_DROP_PENDING: Final = "DELETE FROM pending_batch WHERE cursor = ? AND first = ?"
_ADD_PENDING: Final = "INSERT INTO pending_batch (tenant, cursor, first, last) VALUES (?, ?, ?, ?)"
_NEW_METRIC: Final = (
    "INSERT INTO metric (tenant, device, name, unit, kind) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_BIND: Final = (
    "INSERT INTO metric_binding (tenant, device, epoch, number, metric) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_HEARD: Final = (
    "INSERT INTO presence (tenant, device, heard_ms) VALUES (?, ?, ?)"
    " ON CONFLICT (tenant, device) DO UPDATE SET heard_ms = excluded.heard_ms"
)
_TWIN: Final = (
    "INSERT INTO twin (tenant, device, half, version, changed_ms, document, reason)"
    " VALUES (?, ?, ?, 1, ?, ?, '') ON CONFLICT (tenant, device, half) DO UPDATE SET"
    " version = twin.version + CASE WHEN twin.document = excluded.document THEN 0 ELSE 1 END,"
    " changed_ms = CASE WHEN twin.document = excluded.document THEN twin.changed_ms"
    " ELSE excluded.changed_ms END, document = excluded.document"
)
_COUNT_REFUSED: Final = (
    "INSERT INTO refusal_count (tenant, device, count, last_ms, last_reason) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (tenant, device) DO UPDATE SET count = refusal_count.count + excluded.count,"
    " last_ms = excluded.last_ms, last_reason = excluded.last_reason"
)
_KEEP_REFUSED: Final = (
    "INSERT INTO refused_message (tenant, device, topic, received_ms, reason, size, head)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_TRIM_REFUSED: Final = "DELETE FROM refused_message WHERE id <= (SELECT max(id) FROM refused_message) - ?"


class Writer(ABC):
    """One connection, one transaction at a time."""

    lookups: Lookups

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction."""

    @abstractmethod
    def commit(self) -> None:
        """Make it durable; what was written is on the disk when this returns."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo it. Never raises: the connection may be gone."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection up. Never raises."""

    @abstractmethod
    def fetch(self, statement: str, keys: str) -> Iterable[Row]:
        """The rows that ``statement`` finds for ``keys``, a JSON array."""

    @abstractmethod
    def run(self, statement: str, rows: Sequence[Row]) -> None:
        """Run ``statement`` once for every row."""

    @abstractmethod
    def append(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert many rows into ``table``."""

    def tenants(self, devices: Iterable[str]) -> dict[str, str]:
        """The tenant of each device that is registered."""
        return dict(self.fetch(self.lookups.devices, json.dumps(sorted(devices))))

    def lock_cursors(self, keys: Iterable[FlowKey], now_ms: int) -> dict[FlowKey, Cursor]:
        """The cursors of these flows, made where new, locked against any other ingest."""
        # In one order everywhere, so that two ingests never wait for each other in a circle.
        wanted = sorted(keys)
        found = self._cursors(wanted)
        if missing := [key for key in wanted if key not in found]:
            self.run(_NEW_CURSOR, [(*key, now_ms) for key in missing])
            found = self._cursors(wanted)
        by_id = {cursor.id: cursor.flow for cursor in found.values()}
        for cursor, first, last in self.fetch(self.lookups.pending, json.dumps(list(by_id))):
            by_id[cursor].ahead.append((first, last))
        return found

    def _cursors(self, keys: list[FlowKey]) -> dict[FlowKey, Cursor]:
        rows = self.fetch(self.lookups.cursors, json.dumps(keys))
        return {FlowKey(*row[:4]): Cursor(row[4], Flow(row[5])) for row in rows}

    def move_cursors(self, moved: Sequence[tuple[int, int, Tally]], now_ms: int) -> None:
        """Set the contiguous mark of each (cursor, mark, tally) and add what its rows count."""
        self.run(_MOVE_CURSOR, [(mark, now_ms, *tally, cursor) for cursor, mark, tally in moved])

    def change_pending(
        self, dropped: Sequence[tuple[int, Range]], added: Sequence[tuple[str, int, Range]]
    ) -> None:
        """Forget ranges of (cursor, range) and keep new ones of (tenant, cursor, range)."""
        if dropped:
            self.run(_DROP_PENDING, [(cursor, part[0]) for cursor, part in dropped])
        if added:
            self.run(_ADD_PENDING, [(tenant, cursor, *part) for tenant, cursor, part in added])

    def bindings(self, epochs: Iterable[EpochKey]) -> dict[EpochKey, dict[int, int]]:
        """What the numbers of these epochs stand for."""
        keys = sorted(epochs)
        bound: dict[EpochKey, dict[int, int]] = {key: {} for key in keys}
        for tenant, device, epoch, number, metric in self.fetch(self.lookups.bindings, json.dumps(keys)):
            bound[EpochKey(tenant, device, epoch)][number] = metric
        return bound

    def name_metrics(self, epoch: EpochKey, metrics: Sequence[Metric]) -> list[tuple[int, int]]:
        """The server's metric for each definition, made where new, as (device's number, metric)."""
        tenant, device, _epoch = epoch
        keys = [(tenant, device, metric.name, metric.unit, +metric.kind) for metric in metrics]
        self.run(_NEW_METRIC, sorted(keys))
        found = {row[:5]: row[5] for row in self.fetch(self.lookups.metrics, json.dumps(keys))}
        return [(metric.id, found[key]) for metric, key in zip(metrics, keys, strict=True)]

    def bind(self, epoch: EpochKey, numbers: Mapping[int, int]) -> None:
        """Keep what these numbers stand for from now on in ``epoch``."""
        self.run(_BIND, [(*epoch, number, metric) for number, metric in sorted(numbers.items())])

    def heard(self, devices: Mapping[tuple[str, str], int]) -> None:
        """Note when each (tenant, device) was heard."""
        self.run(_HEARD, [(*key, when) for key, when in sorted(devices.items())])

    def twins(self, halves: Mapping[tuple[str, str, str], tuple[int, str]]) -> None:
        """Keep (when, document) as the latest of each (tenant, device, half)."""
        self.run(_TWIN, [(*key, *value) for key, value in sorted(halves.items())])

    def refuse(self, counts: Sequence[Row], kept: Sequence[Row], limit: int) -> None:
        """Count refusals a device and keep the last ``limit`` refused messages."""
        self.run(_COUNT_REFUSED, sorted(counts))
        self.run(_KEEP_REFUSED, kept)
        self.run(_TRIM_REFUSED, [(limit,)])
