"""The store for unsent data: one SQLite file, committed before anything is sent.

A batch gets its number in the transaction that stores it, within ``(epoch, stream)``. The epoch is
drawn anew for every start, so a power cut that loses the tail of the write-ahead log, or a copied
card, never uses a number twice. Rows leave only when the server's contiguous acknowledgement has
passed them, or for want of room: then the oldest telemetry goes first, events last, and what went
is kept as a gap row in the same numbering, to be told like any other batch.

The numbers between the acknowledged mark and the last assigned one are always covered by rows,
each once. ``max_bytes`` bounds the file; its write-ahead log stays below two megabytes more.

This module is synchronous and knows no event loop; ``store`` runs it in a thread of its own.
"""

import contextlib
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import SpoolCorrupt, SpoolError, SpoolUnwritable
from edge_agent.telemetry.batcher import Draft
from fleet_protocol.messages import Gap, Mark, Metric, MetricKind, SpoolReport, Stream, encode
from fleet_protocol.texts import _

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4172676E

_PAGE: Final = 4096
_SLACK_PAGES: Final = 128
"""Between quota and hard limit of the file: room for a transaction before it drops old rows."""

_WAL_PAGES: Final = 256
_DROPPED_AT_ONCE: Final = 8
"""Rows given up together: a page is free only when all rows on it are gone."""

_SCHEMA: Final = """
CREATE TABLE epoch (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
);
CREATE TABLE counter (
  epoch INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  assigned INTEGER NOT NULL,
  acknowledged INTEGER NOT NULL,
  PRIMARY KEY (epoch, priority)
) WITHOUT ROWID;
CREATE TABLE metric (
  epoch INTEGER NOT NULL,
  id INTEGER NOT NULL,
  name TEXT NOT NULL,
  unit TEXT NOT NULL,
  kind INTEGER NOT NULL,
  PRIMARY KEY (epoch, id)
) WITHOUT ROWID;
-- Clustered by priority, so that dropping the oldest telemetry frees whole pages. A row without a
-- payload is a gap from 'first' to 'seq'.
CREATE TABLE batch (
  priority INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  first INTEGER NOT NULL,
  records INTEGER NOT NULL,
  oldest_ms INTEGER NOT NULL,
  newest_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  checksum INTEGER NOT NULL,
  payload BLOB,
  PRIMARY KEY (priority, epoch, seq)
) WITHOUT ROWID;
CREATE TABLE dropped (records INTEGER NOT NULL);
INSERT INTO dropped VALUES (0);
"""

_PRIORITY: Final = {Stream.TELEMETRY: 0, Stream.EVENT: 1}
"""What is dropped first comes first."""

_CORRUPT: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}
)
"""A missing table and a number that is taken are corruption too: it is not the file that we wrote."""


def schema_of(file: Path) -> int:
    """The schema of the spool in ``file``, which is only read.

    Raises:
        SpoolCorrupt: it is no spool.
    """
    with _translated(), contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise SpoolCorrupt(_("{file} is no spool").format(file=file))
    return int(version)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of sending: older epochs first."""

    epoch: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A batch to send."""

    position: Position
    epoch: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that could not be stored at all, waiting to be told as a gap."""

    records: int
    oldest_wall_ms: int
    newest_wall_ms: int
    reason: str

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(
            self.records + other.records,
            min(self.oldest_wall_ms, other.oldest_wall_ms),
            max(self.newest_wall_ms, other.newest_wall_ms),
            "+".join(sorted({*self.reason.split("+"), *other.reason.split("+")})),
        )


class Spool:
    """The spool of one process: open it, append, send its rows, acknowledge, close.

    Raises, from every method:
        SpoolUnwritable: no room or no writing; the spool is as it was before.
        SpoolCorrupt: the file cannot be used; set it aside.
    """

    def __init__(self, file: Path, max_bytes: int) -> None:
        self.epoch: Final = secrets.token_hex(8)
        self._quota_pages = max_bytes // _PAGE - _SLACK_PAGES
        self._number: int | None = None
        self._defined: set[int] = set()
        with _translated():
            self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            with _translated():
                self._prepare(max_bytes // _PAGE)
        except SpoolError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def append(self, drafts: Sequence[Draft], losses: Mapping[Stream, Loss]) -> int:
        """Store and number ``drafts`` in one transaction, behind gaps that tell ``losses``.

        Returns:
            How many records had to be dropped to make room.
        """
        with self._transaction():
            epoch = self._epoch()
            for stream, loss in losses.items():
                seq = self._assign(epoch, _PRIORITY[stream])
                self._insert_gap(_PRIORITY[stream], epoch, (seq, seq), loss)
                self._count_dropped(loss.records)
            for draft in drafts:
                self._store(epoch, draft)
            return self._make_room()

    def rows(self, stream: Stream, after: Position, limit: int) -> list[Row]:
        """At most ``limit`` batches behind ``after`` in the order of sending; gaps are written out.

        A row whose payload no longer has its checksum becomes a gap: no server would ever take it,
        and all behind it would wait for ever.
        """
        while True:
            with _translated():
                found = self._db.execute(
                    "SELECT b.epoch, e.name, b.seq, b.first, b.records, b.reason, b.oldest_ms, b.newest_ms,"
                    " b.checksum, b.payload FROM batch b JOIN epoch e ON e.number = b.epoch"
                    " WHERE b.priority = ? AND (b.epoch, b.seq) > (?, ?) ORDER BY b.epoch, b.seq LIMIT ?",
                    (_PRIORITY[stream], after.epoch, after.seq, limit),
                ).fetchall()
            damaged = [row[:3] for row in found if row[-1] is not None and zlib.crc32(row[-1]) != row[-2]]
            if not damaged:
                return [self._row(*row) for row in found]
            for epoch, _name, seq in damaged:
                self._give_up_damaged(_PRIORITY[stream], epoch, seq)

    def acknowledge(self, marks: Sequence[Mark]) -> list[Mark]:
        """Delete what the server has; give back the marks that are beyond what this process assigned.

        Marks for an epoch that is not here any more are old news. For an earlier epoch a mark may
        well be beyond what is known here: a power cut took the tail, the server has it.
        """
        with self._transaction():
            return [mark for mark in marks if not self._acknowledge(mark)]

    def forgotten(self, mark: Mark) -> Row | None:
        """A gap over what was acknowledged beyond ``mark`` and is gone here.

        A server that went back to an earlier state says ``mark`` and waits for the numbers behind
        it; without this it would wait for ever.
        """
        with _translated():
            known = self._db.execute(
                "SELECT c.epoch, c.acknowledged FROM counter c JOIN epoch e ON e.number = c.epoch"
                " WHERE e.name = ? AND c.priority = ?",
                (mark.epoch, _PRIORITY[mark.stream]),
            ).fetchone()
        if known is None or mark.seq >= known[1]:
            return None
        epoch, last = known
        gap = Gap(mark.epoch, last, mark.seq + 1, 0, "acknowledged before", 0, 0, self._metrics(epoch))
        return Row(Position(epoch, last), mark.epoch, encode(gap))

    def report(self) -> SpoolReport:
        """Batches and bytes kept, records ever dropped."""
        with _translated():
            (batches,) = self._db.execute("SELECT count(*) FROM batch").fetchone()
            (dropped,) = self._db.execute("SELECT records FROM dropped").fetchone()
            return SpoolReport(batches=batches, bytes=self._used_pages() * _PAGE, dropped_records=dropped)

    def _row(self, epoch: int, name: str, seq: int, *rest: Any) -> Row:
        first, records, reason, oldest_ms, newest_ms, _checksum, payload = rest
        if payload is None:
            gap = Gap(name, seq, first, records, reason, oldest_ms, newest_ms, self._metrics(epoch))
            payload = encode(gap)
        return Row(Position(epoch, seq), name, payload)

    def _prepare(self, max_pages: int) -> None:
        execute = self._db.execute
        execute(f"PRAGMA page_size = {_PAGE}")
        execute("PRAGMA cache_size = -512")
        execute("PRAGMA temp_store = MEMORY")
        execute("PRAGMA journal_mode = WAL")
        # FULL syncs the log at every commit: what is told as stored survives a power cut.
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * _PAGE}")
        (tables,) = execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            self._create()
        self._check_schema()
        execute(f"PRAGMA max_page_count = {max_pages}")

    def _create(self) -> None:
        with self._transaction():
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_schema(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if (application, version) != (_APPLICATION_ID, SCHEMA_VERSION):
            raise SpoolCorrupt(
                _("the spool has schema {version}; this agent writes schema {known}").format(
                    version=version, known=SCHEMA_VERSION
                )
            )
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise SpoolCorrupt(str(verdict))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        number, defined = self._number, set(self._defined)
        try:
            with _translated():
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
        except BaseException:
            self._number, self._defined = number, defined
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _epoch(self) -> int:
        """This process's epoch; its row is written with its first batch."""
        if self._number is None:
            self._number = self._db.execute(
                "INSERT INTO epoch (name) VALUES (?) RETURNING number", (self.epoch,)
            ).fetchone()[0]
        return self._number

    def _assign(self, epoch: int, priority: int) -> int:
        (seq,) = self._db.execute(
            "INSERT INTO counter VALUES (?, ?, 1, 0) ON CONFLICT (epoch, priority)"
            " DO UPDATE SET assigned = assigned + 1 RETURNING assigned",
            (epoch, priority),
        ).fetchone()
        return int(seq)

    def _store(self, epoch: int, draft: Draft) -> None:
        new = [metric for metric in draft.metrics if metric.id not in self._defined]
        self._db.executemany(
            "INSERT INTO metric VALUES (?, ?, ?, ?, ?)",
            [(epoch, metric.id, metric.name, metric.unit, int(metric.kind)) for metric in new],
        )
        self._defined |= {metric.id for metric in new}
        seq = self._assign(epoch, _PRIORITY[draft.stream])
        payload = draft.write(self.epoch, seq, new)
        self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, '', ?, ?)",
            (
                *(_PRIORITY[draft.stream], epoch, seq, seq, draft.records),
                *(draft.oldest_wall_ms, draft.newest_wall_ms, zlib.crc32(payload), payload),
            ),
        )

    def _insert_gap(self, priority: int, epoch: int, span: tuple[int, int], loss: Loss) -> None:
        """Put a gap over ``span`` in place of what is there, merged with the gaps beside it."""
        first, last = span
        beside = self._db.execute(
            "SELECT first, seq, records, oldest_ms, newest_ms, reason FROM batch"
            " WHERE priority = ?1 AND epoch = ?2 AND payload IS NULL AND seq IN (?3 - 1,"
            " (SELECT min(seq) FROM batch WHERE priority = ?1 AND epoch = ?2 AND seq > ?4))",
            (priority, epoch, first, last),
        ).fetchall()
        for gap_first, gap_last, *about in beside:
            first, last, loss = min(first, gap_first), max(last, gap_last), loss + Loss(*about)
        self._db.execute(
            "DELETE FROM batch WHERE priority = ? AND epoch = ? AND seq BETWEEN ? AND ?",
            (priority, epoch, first, last),
        )
        self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)",
            (
                *(priority, epoch, last, first),
                *(loss.records, loss.oldest_wall_ms, loss.newest_wall_ms, loss.reason),
            ),
        )

    def _make_room(self) -> int:
        dropped = 0
        while self._used_pages() > self._quota_pages:
            records = self._drop_oldest()
            if not records:
                raise SpoolUnwritable(
                    _("nothing is left to drop and the quota is full; raise 'max_bytes' of [spool]")
                )
            dropped += records
        return dropped

    def _drop_oldest(self) -> int:
        """Turn the oldest rows of the lowest priority into a gap; the records that were in them."""
        oldest = self._db.execute(
            "SELECT priority, epoch, seq, records, oldest_ms, newest_ms FROM batch"
            " WHERE payload IS NOT NULL ORDER BY priority, epoch, seq LIMIT ?",
            (_DROPPED_AT_ONCE,),
        ).fetchall()
        if not oldest:
            return 0
        priority, epoch = oldest[0][:2]
        together = [row for row in oldest if row[:2] == (priority, epoch)]
        records = 0
        for _priority, _epoch, seq, held, oldest_ms, newest_ms in together:
            self._insert_gap(priority, epoch, (seq, seq), Loss(held, oldest_ms, newest_ms, "quota"))
            records += int(held)
        self._count_dropped(records)
        return max(records, 1)

    def _give_up_damaged(self, priority: int, epoch: int, seq: int) -> None:
        with self._transaction():
            held, oldest_ms, newest_ms = self._db.execute(
                "SELECT records, oldest_ms, newest_ms FROM batch"
                " WHERE priority = ? AND epoch = ? AND seq = ?",
                (priority, epoch, seq),
            ).fetchone()
            self._insert_gap(priority, epoch, (seq, seq), Loss(held, oldest_ms, newest_ms, "damaged"))
            self._count_dropped(held)

    def _acknowledge(self, mark: Mark) -> bool:
        priority = _PRIORITY[mark.stream]
        known = self._db.execute(
            "SELECT c.epoch, c.assigned, c.acknowledged FROM counter c"
            " JOIN epoch e ON e.number = c.epoch WHERE e.name = ? AND c.priority = ?",
            (mark.epoch, priority),
        ).fetchone()
        if known is None:
            # Nothing of this stream was ever numbered: only this process's own epoch can tell.
            return mark.epoch != self.epoch or mark.seq == 0
        epoch, assigned, acknowledged = known
        if mark.seq > assigned and epoch == self._number:
            return False
        if mark.seq > acknowledged:
            self._db.execute(
                "DELETE FROM batch WHERE priority = ? AND epoch = ? AND seq <= ?",
                (priority, epoch, mark.seq),
            )
            self._db.execute(
                "UPDATE counter SET acknowledged = ? WHERE epoch = ? AND priority = ?",
                (min(mark.seq, assigned), epoch, priority),
            )
            self._forget_if_empty(epoch)
        return True

    def _forget_if_empty(self, epoch: int) -> None:
        """An earlier epoch with nothing left to send is over."""
        if (
            epoch == self._number
            or self._db.execute(
                "SELECT 1 FROM batch WHERE priority IN (0, 1) AND epoch = ? LIMIT 1", (epoch,)
            ).fetchone()
        ):
            return
        self._db.execute("DELETE FROM metric WHERE epoch = ?", (epoch,))
        self._db.execute("DELETE FROM counter WHERE epoch = ?", (epoch,))
        self._db.execute("DELETE FROM epoch WHERE number = ?", (epoch,))

    def _metrics(self, epoch: int) -> list[Metric]:
        with _translated():
            rows = self._db.execute("SELECT id, name, unit, kind FROM metric WHERE epoch = ?", (epoch,))
            return [Metric(number, name, unit, MetricKind(kind)) for number, name, unit, kind in rows]

    def _count_dropped(self, records: int) -> None:
        self._db.execute("UPDATE dropped SET records = records + ?", (records,))

    def _used_pages(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours: what to set aside, and what to wait out."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
            raise SpoolCorrupt(str(error)) from error
        raise SpoolUnwritable(
            _("{reason}; free space or replace the storage medium").format(reason=error)
        ) from error
