"""The spool: what it promises about numbers, room, acknowledgements and damage."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from edge_agent.errors import SpoolCorrupt, SpoolUnwritable
from edge_agent.telemetry.batcher import Batcher
from edge_agent.telemetry.spool import Loss, Position, Row, Spool
from fleet_protocol.messages import Batch, Events, Gap, Mark, Stream, Telemetry, decode
from tests.support.drafts import FLOW, PRESSURE, HandClock, event, telemetry

MIB = 2**20


def batches(spool: Spool, stream: Stream = Stream.TELEMETRY) -> list[Batch]:
    return [decoded(stream, row) for row in spool.rows(stream, Position(), 100_000)]


def decoded(stream: Stream, row: Row) -> Batch:
    message = decode(stream.channel, row.payload)
    assert isinstance(message, Telemetry | Events | Gap)
    return message


def mark(spool: Spool, seq: int, stream: Stream = Stream.TELEMETRY) -> Mark:
    return Mark(spool.epoch, stream, seq)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_streams_are_numbered_separately_from_one(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry(), event(), telemetry()], {})
    assert [batch.seq for batch in batches(spool)] == [1, 2]
    assert [batch.seq for batch in batches(spool, Stream.EVENT)] == [1]
    spool.close()


def test_a_definition_travels_in_the_first_batch_that_uses_it(file: Path) -> None:
    batcher = Batcher(HandClock())
    spool = Spool(file, MIB)
    for metric in (FLOW, PRESSURE, FLOW):
        spool.append([telemetry(metric=metric, batcher=batcher)], {})
    defined = [
        [each.name for each in batch.metrics] for batch in batches(spool) if isinstance(batch, Telemetry)
    ]
    assert defined == [["flow"], ["pressure"], []]
    spool.close()


def test_every_commit_is_synced(file: Path) -> None:
    spool = Spool(file, MIB)
    full, wal = 2, "wal"
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (full,)
    assert spool._db.execute("PRAGMA journal_mode").fetchone() == (wal,)
    spool.close()


def test_only_acknowledged_rows_leave(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry() for _ in range(5)] + [event()], {})
    assert spool.acknowledge([mark(spool, 3)]) == []
    assert [batch.seq for batch in batches(spool)] == [4, 5]
    assert [batch.seq for batch in batches(spool, Stream.EVENT)] == [1]
    assert spool.acknowledge([mark(spool, 2)]) == []
    assert [batch.seq for batch in batches(spool)] == [4, 5]
    spool.close()


def test_a_mark_beyond_what_was_given_out_is_refused(file: Path) -> None:
    spool = Spool(file, MIB)
    assert spool.acknowledge([mark(spool, 1)]) == [mark(spool, 1)]
    spool.append([telemetry()], {})
    assert spool.acknowledge([mark(spool, 2)]) == [mark(spool, 2)]
    assert spool.acknowledge([mark(spool, 1, Stream.EVENT)]) == [mark(spool, 1, Stream.EVENT)]
    assert [batch.seq for batch in batches(spool)] == [1]
    spool.close()


def test_a_mark_of_an_unknown_epoch_is_ignored(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry()], {})
    assert spool.acknowledge([Mark("f" * 16, Stream.TELEMETRY, 9)]) == []
    assert len(batches(spool)) == 1
    spool.close()


def test_an_earlier_epoch_goes_first_and_is_forgotten_when_empty(file: Path) -> None:
    before = Spool(file, MIB)
    before.append([telemetry(), telemetry()], {})
    before.close()
    spool = Spool(file, MIB)
    spool.append([telemetry()], {})
    assert [(batch.epoch, batch.seq) for batch in batches(spool)] == [
        (before.epoch, 1),
        (before.epoch, 2),
        (spool.epoch, 1),
    ]
    # The server may know more of an epoch than a spool whose tail a power cut took.
    assert spool.acknowledge([Mark(before.epoch, Stream.TELEMETRY, 7)]) == []
    assert [batch.epoch for batch in batches(spool)] == [spool.epoch]
    spool.close()
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT name FROM epoch").fetchall() == [(spool.epoch,)]
    database.close()


def test_want_of_room_drops_the_oldest_telemetry_and_tells_it(file: Path) -> None:
    spool = Spool(file, MIB)
    batcher = Batcher(HandClock())
    spool.append([event("first")], {})
    dropped = sum(spool.append([telemetry(500, batcher=batcher)], {}) for _ in range(200))
    assert dropped > 0
    gap, *rest = batches(spool)
    assert isinstance(gap, Gap)
    assert (gap.first, gap.records, gap.reason) == (1, dropped, "quota")
    assert gap.records == gap.seq * 500
    assert [metric.name for metric in gap.metrics] == ["flow"]
    assert [batch.seq for batch in rest] == list(range(gap.seq + 1, 201))
    assert [batch.seq for batch in batches(spool, Stream.EVENT)] == [1]
    assert spool.report().dropped_records == dropped
    assert file.stat().st_size <= MIB
    spool.close()


def test_events_go_last_and_are_told_too(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry(500) for _ in range(20)], {})
    for _ in range(60):
        spool.append([event("x" * 200) for _ in range(50)], {})
    told = batches(spool)
    assert [type(batch) for batch in told] == [Gap]
    first, *rest = batches(spool, Stream.EVENT)
    assert isinstance(first, Gap)
    assert [batch.seq for batch in rest] == list(range(first.seq + 1, 3001))
    assert file.stat().st_size <= MIB
    spool.close()


def test_the_log_beside_the_file_stays_small(file: Path) -> None:
    spool = Spool(file, 4 * MIB)
    log = file.with_name("spool.db-wal")
    largest = 0
    for number in range(80):
        spool.append([telemetry(2000)], {})
        spool.acknowledge([mark(spool, number)])
        largest = max(largest, log.stat().st_size)
    assert largest <= 2 * MIB
    spool.close()


def test_losses_are_told_in_the_same_numbering(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry()], {})
    spool.append([telemetry()], {Stream.TELEMETRY: Loss(7, 10, 20, "disk full")})
    first, gap, last = batches(spool)
    assert isinstance(gap, Gap)
    assert (first.seq, gap.first, gap.seq, last.seq) == (1, 2, 2, 3)
    assert (gap.records, gap.oldest_wall_ms, gap.newest_wall_ms, gap.reason) == (7, 10, 20, "disk full")
    spool.close()


def test_neighboring_gaps_become_one(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([], {Stream.TELEMETRY: Loss(1, 10, 20, "disk full")})
    spool.append([], {Stream.TELEMETRY: Loss(2, 5, 30, "disk full")})
    (gap,) = batches(spool)
    assert isinstance(gap, Gap)
    assert (gap.first, gap.seq, gap.records, gap.oldest_wall_ms, gap.newest_wall_ms) == (1, 2, 3, 5, 30)
    spool.close()


def test_a_damaged_payload_becomes_a_gap(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry(3), telemetry(), telemetry()], {})
    spool.close()
    database = sqlite3.connect(file)
    database.execute("UPDATE batch SET payload = zeroblob(length(payload)) WHERE seq IN (1, 2)")
    database.commit()
    database.close()
    spool = Spool(file, MIB)
    gap, rest = batches(spool)
    assert isinstance(gap, Gap)
    assert (gap.first, gap.seq, gap.records, gap.reason, rest.seq) == (1, 2, 4, "damaged", 3)
    spool.close()


def test_a_server_that_went_back_is_told_what_is_gone_here(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry() for _ in range(5)], {})
    spool.acknowledge([mark(spool, 4)])
    row = spool.forgotten(mark(spool, 1))
    assert row is not None
    gap = decoded(Stream.TELEMETRY, row)
    assert isinstance(gap, Gap)
    assert (gap.first, gap.seq, gap.records) == (2, 4, 0)
    assert spool.forgotten(mark(spool, 4)) is None
    assert spool.forgotten(Mark("f" * 16, Stream.TELEMETRY, 0)) is None
    spool.close()


def test_a_full_medium_leaves_the_spool_as_it_was(file: Path) -> None:
    spool = Spool(file, MIB)
    spool.append([telemetry()], {})
    # SQLite's own limit stands in for the medium: from here on the file may not grow.
    spool._db.execute("PRAGMA max_page_count = 1")
    drafts = [telemetry(2000) for _ in range(100)]
    with pytest.raises(SpoolUnwritable, match="full"):
        spool.append(drafts, {})
    stored = batches(spool)
    assert [batch.seq for batch in stored] == list(range(1, len(stored) + 1))
    spool._db.execute("PRAGMA max_page_count = 10000")
    spool.append([telemetry()], {})
    assert [batch.seq for batch in batches(spool)] == list(range(1, len(stored) + 2))
    assert isinstance(stored[0], Telemetry)
    assert stored[0].metrics
    spool.close()


@pytest.mark.parametrize("content", [b"not a database" * 400, b"SQLite format 3\0" + b"\xff" * 8192])
def test_what_is_no_spool_is_corrupt(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SpoolCorrupt):
        Spool(file, MIB)


def test_another_schema_is_corrupt(file: Path) -> None:
    Spool(file, MIB).close()
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SpoolCorrupt, match="99"):
        Spool(file, MIB)


def _survivors(folder: Path, file: Path, log: bytes, epoch: str) -> int:
    """How many batches a new process finds beside ``log``; there is no hole and no number comes again."""
    folder.mkdir()
    shutil.copy(file, folder)
    (folder / "spool.db-wal").write_bytes(log)
    after = Spool(folder / "spool.db", MIB)
    left = batches(after)
    assert [(batch.epoch, batch.seq) for batch in left] == [
        (epoch, number) for number in range(1, len(left) + 1)
    ]
    after.append([telemetry()], {})
    assert (batches(after)[-1].epoch, batches(after)[-1].seq) == (after.epoch, 1)
    assert after.epoch != epoch
    after.close()
    return len(left)


def test_whatever_part_of_the_log_a_power_cut_leaves_there_is_no_hole_and_no_number_comes_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "spool.db"
    spool = Spool(file, MIB)
    for _ in range(12):
        spool.append([telemetry(20)], {})
    log = file.with_name("spool.db-wal").read_bytes()
    cuts = [*range(0, len(log), len(log) // 25), len(log)]
    cut = {_survivors(tmp_path / f"cut-{at}", file, log[:at], spool.epoch) for at in cuts}
    assert {0, 12} <= cut
    # Sectors reach the medium in any order: one in the middle may still be an old one.
    torn = {
        _survivors(tmp_path / f"torn-{at}", file, log[:at] + b"\xaa" * 512 + log[at + 512 :], spool.epoch)
        for at in cuts[1:-1:5]
    }
    assert max(torn) < 12
    spool.close()
