"""Checkpoints: when they are due, where they go, and what keeps a server from signing."""

import json
import os
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.audit.checkpoint_files import Copy, provide_audit_key, public_file
from fleet_server.audit.checkpoints import STEADY, Checkpoint, checkpoint_due
from fleet_server.audit.notary import LOOK_MS, CheckpointKeeper, write_checkpoint
from fleet_server.database.engine import open_engine, writing
from fleet_server.errors import AuditBroken, AuditError
from fleet_server.health import server_health
from tests.support.actors import SOMEBODY
from tests.support.auditing import TENANT, Archive, fleet_server
from tests.support.databases import migrated_sqlite
from tests.support.disk import fill
from tests.support.fleet_server import ServerProcess
from tests.support.waiting import wait_until

NOW = 1_800_000_000_000


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Archive:
    return Archive(engine, tmp_path / "data")


@pytest.fixture
def small(tmp_path: Path) -> Archive:
    """On SQLite alone, where the database does not matter."""
    return Archive(open_engine(migrated_sqlite(tmp_path / "fleet.db")), tmp_path / "data")


def serials(path: Path) -> list[int]:
    return [json.loads(line)["serial"] for line in path.read_text().splitlines()]


def codes(archive: Archive) -> set[str]:
    return {item.code for item in server_health(archive.engine) if item.code.startswith("audit.")}


@pytest.mark.parametrize(
    ("signed", "number", "later_ms", "is_due"),
    [
        (None, 0, 0, False),
        (None, 1, 0, True),
        (10, 10, STEADY.after_ms * 9, False),
        (10, 9, STEADY.after_ms * 9, False),
        (10, 11, STEADY.after_ms - 1, False),
        (10, 11, STEADY.after_ms, True),
        (10, 10 + STEADY.records, 0, True),
        (10, 9 + STEADY.records, 0, False),
        (10, 11, -1, True),
    ],
)
def test_when_a_checkpoint_is_due(signed: int | None, number: int, later_ms: int, is_due: bool) -> None:
    last = Checkpoint(1, 1, "default", signed, "0" * 64, NOW, "0" * 64, "0" * 64) if signed else None
    assert checkpoint_due(last, number, NOW + later_ms) is is_due


def test_a_checkpoint_is_written_when_the_chain_has_moved(archive: Archive) -> None:
    archive.add(3)
    write_checkpoint(archive.engine, archive.config)
    archive.add()
    assert serials(archive.checkpoints) == [1, 2]
    assert archive.verify()[0] == 0


def test_the_key_is_for_its_owner_alone_and_its_public_half_beside_it(small: Archive) -> None:
    folder = small.config.audit
    assert (folder / "audit.key").stat().st_mode & 0o777 == 0o600
    assert small.checkpoints.exists() is False
    public = public_file(small.config).read_text()
    public_file(small.config).unlink()
    provide_audit_key(small.config)
    assert public_file(small.config).read_text() == public
    assert public.strip() not in (folder / "audit.key").read_text().replace(public.strip(), "", 1)


@pytest.mark.attack
def test_a_lost_key_is_not_replaced_in_silence(small: Archive) -> None:
    small.add()
    (small.config.audit / "audit.key").unlink()
    with pytest.raises(AuditError, match="restore it from a backup"):
        provide_audit_key(small.config)
    keeper = CheckpointKeeper(small.engine, small.config)
    keeper.settle()
    assert codes(small) == {"audit.checkpoint"}


def test_what_a_death_left_of_a_line_is_cut_off(small: Archive) -> None:
    small.add()
    with small.checkpoints.open("ab") as file:
        file.write(b'{"format":1,"serial":2')
    small.add()
    assert serials(small.checkpoints) == [1, 2]
    assert small.verify()[0] == 0


@pytest.mark.attack
@pytest.mark.parametrize("how", ["rewritten", "restored", "altered", "foreign"])
def test_nothing_is_signed_on_top_of_what_was_tampered_with(archive: Archive, how: str) -> None:
    archive.add(3)
    archive.add(3)
    match how:
        case "rewritten":
            archive.tamper("UPDATE audit_record SET person = 'nobody' WHERE number = 5")
            archive.rewrite(5)
        case "restored":
            archive.tamper("DELETE FROM audit_record WHERE number > 4")
        case "altered":
            archive.checkpoints.write_bytes(
                archive.checkpoints.read_bytes().replace(b'"serial":2', b'"serial":3')
            )
        case "foreign":
            (archive.config.audit / "audit.key").unlink()
            before = archive.checkpoints.rename(archive.folder / "aside")
            provide_audit_key(archive.config)
            before.rename(archive.checkpoints)
    archive.add(3, sign=False)
    lines = archive.checkpoints.read_bytes()
    with pytest.raises(AuditBroken):
        write_checkpoint(archive.engine, archive.config)
    keeper = CheckpointKeeper(archive.engine, archive.config)
    keeper.settle()
    assert codes(archive) == {"audit.broken"}
    assert archive.checkpoints.read_bytes() == lines
    archive.checkpoints.unlink()
    keeper.settle()
    assert (codes(archive), serials(archive.checkpoints)) == (set(), [1])


def test_a_keeper_looks_from_time_to_time(small: Archive) -> None:
    keeper = CheckpointKeeper(small.engine, small.config)
    keeper.tend(NOW)
    small.add(sign=False)
    keeper.tend(NOW + LOOK_MS - 1)
    assert not small.checkpoints.exists() or serials(small.checkpoints) == []
    keeper.tend(NOW + LOOK_MS)
    assert serials(small.checkpoints) == [1]
    small.add(sign=False)
    keeper.tend(NOW + 2 * LOOK_MS)
    assert serials(small.checkpoints) == [1], "not due so soon"
    keeper.settle()
    assert serials(small.checkpoints) == [1, 2]


def test_a_copy_catches_up_whatever_was_in_its_way(small: Archive, tmp_path: Path) -> None:
    share = tmp_path / "share"
    small.copy_to(share / "held.jsonl")
    keeper = CheckpointKeeper(small.engine, small.config)
    small.add(sign=False)
    keeper.settle()
    assert (codes(small), serials(small.checkpoints)) == ({"audit.checkpoint"}, [1])
    small.add(sign=False)
    keeper.settle()
    share.mkdir()
    keeper.settle()
    held = share / "held.jsonl"
    assert (codes(small), held.read_bytes()) == (set(), small.checkpoints.read_bytes())
    held.write_bytes(held.read_bytes()[:-30])
    small.add(sign=False)
    keeper.settle()
    assert (serials(held), codes(small)) == ([1, 2, 3], set())
    assert small.verify()[0] == 0, "the copy is what is verified where one is named"
    held.write_bytes(held.read_bytes().replace(b'"serial":2', b'"serial":7'))
    keeper.settle()
    assert codes(small) == {"audit.checkpoint"}
    assert serials(held) == [1, 7, 3], "it is evidence: nobody writes over it"
    assert small.verify()[0] == 1


def test_a_share_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """A pipe that nobody writes into lets its reader wait, as a network file system does that is gone."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = threading.active_count()
    copy = Copy(pipe, tmp_path / "copy")
    for _turn in range(3):
        with pytest.raises(AuditError, match="does not answer"):
            copy.refresh(limit_s=0.1)
    assert threading.active_count() == before + 1
    with pipe.open("wb"):
        wait_until(lambda: threading.active_count() == before, "the end of the thread")


def test_a_server_signs_at_start_meanwhile_and_at_its_end(small_disk: Path, tmp_path: Path) -> None:
    held = small_disk / "held.jsonl"
    server = ServerProcess(tmp_path / "data", "--audit-checkpoints", str(held))
    own = server.data / "audit" / "checkpoints.jsonl"
    fill(small_disk / "filler")
    try:
        server.start()
        assert serials(own) == [1]
        wait_until(lambda: server.codes() == {"audit.checkpoint"}, "the full disk is told")
        (small_disk / "filler").unlink()
        wait_until(lambda: server.codes() == set(), "it has caught up")
        record(server.data, STEADY.records)
        wait_until(lambda: serials(held) == [1, 2], "a checkpoint while it runs")
        record(server.data, 1)
        assert server.stop() == 0
        assert serials(held) == [1, 2, 3]
        assert held.read_bytes() == own.read_bytes()
        done = fleet_server("audit", "verify", "--data", server.data)
        assert done.returncode == 0, done.stdout
        assert "not signed yet" not in done.stdout
    finally:
        server.end()


def record(data: Path, count: int) -> None:
    """So many changes at once."""
    engine = open_engine(f"sqlite:///{data / 'fleet.db'}")
    with writing(engine) as session:
        for _turn in range(count):
            audit.append(session, TENANT, SOMEBODY, Change("group.set", "north"))
    engine.dispose()
