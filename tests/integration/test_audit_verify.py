"""What ``audit verify`` finds after somebody has tampered with the record of changes, on both databases."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from fleet_server.audit.checkpoint_files import provide_audit_key, public_file
from fleet_server.audit.notary import write_checkpoint
from tests.support.auditing import Archive, fleet_server

INSERT = (
    "INSERT INTO audit_record SELECT tenant, {number}, time_ms, 'mallory', role, source, action, subject,"
    " before_sha256, after_sha256, detail, previous_sha256, sha256 FROM audit_record WHERE number = {of}"
)
SHIFT = (
    "UPDATE audit_record SET number = -number - 1 WHERE number >= 5",
    "UPDATE audit_record SET number = -number WHERE number < 0",
)


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Archive:
    """Ten records, signed at 3, 6 and 9; the tenth is not."""
    archive = Archive(engine, tmp_path / "data")
    for _turn in range(3):
        archive.add(3)
    archive.add(sign=False)
    return archive


def kinds(report: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(one["kind"], one["record"]) for one in report["findings"]]


def test_an_honest_chain_is_whole(archive: Archive) -> None:
    code, report = archive.verify()
    assert code == 0
    assert (report["whole"], report["records"], report["checkpoints"], report["signed"]) == (True, 10, 3, 9)
    command = [sys.executable, "-m", "fleet_server", "audit", "verify", "--data", str(archive.folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert said[0] == "whole: 10 records, 3 checkpoints that hold"
    assert said[1].startswith("signed up to record 9, at 20")
    assert said[2].startswith("not signed yet: the records behind it up to 10")


@pytest.mark.attack
def test_a_changed_field_is_found_whichever_it_is(archive: Archive) -> None:
    fields = ("person", "role", "source", "action", "subject", "before_sha256", "after_sha256", "detail")
    archive.tamper(
        *(
            f"UPDATE audit_record SET {field} = 'x' WHERE number = {row}"
            for row, field in enumerate(fields, 1)
        ),
        "UPDATE audit_record SET time_ms = time_ms + 1 WHERE number = 9",
    )
    code, report = archive.verify()
    assert (code, kinds(report)) == (1, [("record.altered", row) for row in range(1, 10)])


@pytest.mark.attack
def test_a_changed_digest_is_found(archive: Archive) -> None:
    archive.tamper(f"UPDATE audit_record SET sha256 = '{'a' * 64}' WHERE number = 4")
    assert kinds(archive.verify()[1]) == [("record.altered", 4), ("record.previous", 5)]


@pytest.mark.attack
def test_a_deleted_record_is_found(archive: Archive) -> None:
    archive.tamper("DELETE FROM audit_record WHERE number = 4")
    code, report = archive.verify()
    assert (code, kinds(report)) == (1, [("record.missing", 4)])
    assert report["findings"][0]["message"] == "record 4 is missing"


@pytest.mark.attack
def test_a_deleted_record_whose_place_was_closed_is_found(archive: Archive) -> None:
    archive.tamper(
        "DELETE FROM audit_record WHERE number = 4",
        "UPDATE audit_record SET number = -number + 1 WHERE number > 4",
        "UPDATE audit_record SET number = -number WHERE number < 0",
    )
    archive.rewrite(4)
    assert kinds(archive.verify()[1])[0] == ("record.resigned", 6)


@pytest.mark.attack
@pytest.mark.parametrize("first", [1, 7, 9])
def test_a_deleted_end_is_found(archive: Archive, first: int) -> None:
    archive.tamper(f"DELETE FROM audit_record WHERE number >= {first}")
    code, report = archive.verify()
    assert (code, kinds(report)) == (1, [("record.tail", 9)])
    assert f"the chain ends with record {first - 1}, but checkpoint 3" in report["findings"][0]["message"]


@pytest.mark.attack
def test_two_that_changed_places_are_found(archive: Archive) -> None:
    archive.tamper(
        "UPDATE audit_record SET number = 99 WHERE number = 4",
        "UPDATE audit_record SET number = 4 WHERE number = 5",
        "UPDATE audit_record SET number = 5 WHERE number = 99",
    )
    code, report = archive.verify()
    assert code == 1
    assert {("record.altered", 4), ("record.altered", 5)} <= set(kinds(report))


@pytest.mark.attack
def test_an_inserted_record_is_found(archive: Archive) -> None:
    archive.tamper(*SHIFT, INSERT.format(number=5, of=4))
    code, report = archive.verify()
    assert code == 1
    assert kinds(report)[0] == ("record.previous", 5)
    archive.rewrite(5)
    code, report = archive.verify()
    assert (code, kinds(report)) == (1, [("record.resigned", 6), ("record.resigned", 9)])


@pytest.mark.attack
def test_a_chain_that_was_written_anew_without_the_key_is_found(archive: Archive) -> None:
    archive.tamper("UPDATE audit_record SET person = 'nobody' WHERE number = 2")
    archive.rewrite(2)
    code, report = archive.verify()
    assert (code, kinds(report)) == (1, [("record.resigned", number) for number in (3, 6, 9)])
    first = report["findings"][0]
    assert first["expected"] == json.loads(archive.checkpoints.read_text().splitlines()[0])["sha256"]
    assert first["found"] == archive.records()[2].sha256


def test_only_so_many_findings_are_told_one_by_one(archive: Archive) -> None:
    archive.add(30)
    archive.tamper("UPDATE audit_record SET person = 'nobody'")
    report = archive.verify()[1]
    assert (len(report["findings"]), report["more"]) == (20, 20)


def test_what_is_no_record_is_found(archive: Archive) -> None:
    if archive.engine.dialect.name != "sqlite":
        pytest.skip("only SQLite takes a text for a number")
    archive.tamper("UPDATE audit_record SET time_ms = 'late' WHERE number = 4")
    report = archive.verify()[1]
    assert kinds(report) == [("record.altered", 4), ("record.missing", 4)]


def altered(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"number":6', b'"number":5'), lines[2]]


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], list[str]]] = {
    "cut in a line": (lambda lines: [*lines[:2], lines[2][:-20]], ["checkpoint.cut"]),
    "cut": (lambda lines: lines[:2], ["checkpoint.short"]),
    "emptied": (lambda _lines: [], ["checkpoint.short"]),
    "begun later": (lambda lines: lines[1:], ["checkpoint.order"]),
    "a line out": (lambda lines: [lines[0], lines[2]], ["checkpoint.order"]),
    "swapped": (lambda lines: [lines[0], lines[2], lines[1]], ["checkpoint.order"] * 2),
    "a line twice": (lambda lines: [*lines, lines[2]], ["checkpoint.order"]),
    "altered": (altered, ["checkpoint.altered"]),
    "no JSON": (
        lambda lines: [lines[0], b"[" * 1500 + b"\n", lines[2]],
        ["checkpoint.altered", "checkpoint.order"],
    ),
}


@pytest.mark.attack
@pytest.mark.parametrize("how", TAMPERINGS)
def test_checkpoints_that_were_tampered_with_are_found(archive: Archive, tmp_path: Path, how: str) -> None:
    """In the copy that a second party holds."""
    tampered, expected = TAMPERINGS[how]
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(tampered(archive.checkpoints.read_bytes().splitlines(keepends=True))))
    code, report = archive.verify("--checkpoints", copy)
    assert code == 1
    assert [one["kind"] for one in report["findings"]][: len(expected)] == expected


@pytest.mark.attack
def test_a_foreign_key_is_named(archive: Archive, tmp_path: Path) -> None:
    own = public_file(archive.config).read_text().strip()
    other = tmp_path / "other.pub"
    other.write_text("ab" * 32 + "\n")
    code, report = archive.verify("--key", other)
    assert code == 1
    assert report["findings"][0]["kind"] == "checkpoint.key"
    assert (report["findings"][0]["expected"], report["findings"][0]["found"]) == ("ab" * 32, own)


@pytest.mark.attack
def test_a_thief_of_the_server_does_not_fool_whoever_holds_the_checkpoints(
    archive: Archive, tmp_path: Path
) -> None:
    """With the database and the folder everything can be made anew, but for the copy that is elsewhere."""
    copy, key = tmp_path / "held.jsonl", tmp_path / "held.pub"
    copy.write_bytes(archive.checkpoints.read_bytes())
    key.write_bytes(public_file(archive.config).read_bytes())
    archive.tamper("UPDATE audit_record SET person = 'nobody' WHERE number = 2")
    archive.rewrite(2)
    archive.checkpoints.unlink()
    write_checkpoint(archive.engine, archive.config)
    assert archive.verify()[0] == 0, "by itself it looks whole"
    code, report = archive.verify("--checkpoints", copy, "--key", key)
    assert (code, kinds(report)[0]) == (1, ("record.resigned", 3))
    for name in ("audit.key", "audit.pub", "checkpoints.jsonl"):
        (archive.config.audit / name).unlink()
    provide_audit_key(archive.config)
    write_checkpoint(archive.engine, archive.config)
    assert archive.verify("--checkpoints", copy, "--key", key)[0] == 1


def test_an_export_proves_itself_on_another_machine(archive: Archive, tmp_path: Path) -> None:
    out = tmp_path / "export.jsonl"
    done = fleet_server("audit", "export", "--data", archive.folder, "--out", out)
    assert (done.returncode, done.stdout) == (0, f"10 records are in {out}\n")
    given = ("--checkpoints", archive.checkpoints, "--key", public_file(archive.config), "--json")
    whole = fleet_server("audit", "verify", "--export", out, *given)
    assert whole.returncode == 0, whole.stdout
    assert json.loads(whole.stdout)["signed"] == 9
    lines = out.read_bytes().splitlines(keepends=True)
    for tampered, kind in (
        ([*lines[:4], lines[4].replace(b"kim", b"tim"), *lines[5:]], "record.altered"),
        ([*lines[:4], *lines[5:]], "record.missing"),
        (lines[:-1], "export.cut"),
        ([*lines[:4], lines[5], lines[4], *lines[6:]], "record.missing"),
        ([*lines[:4], b"{}\n", *lines[5:]], "record.altered"),
        ([*lines, lines[-1]], "record.order"),
        ([lines[0].replace(b'"key":"', b'"key":"00'), *lines[1:]], "export.key"),
    ):
        out.write_bytes(b"".join(tampered))
        found = fleet_server("audit", "verify", "--export", out, *given)
        assert found.returncode == 1
        assert kind in {one["kind"] for one in json.loads(found.stdout)["findings"]}


def test_what_cannot_be_checked_is_neither_whole_nor_broken(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pub").write_text("no key")
    for options, said in (
        (("--data", tmp_path / "empty"), "is no server's data folder"),
        (("--data", archive.folder, "--checkpoints", tmp_path / "none"), "cannot be read"),
        (("--data", archive.folder, "--key", tmp_path / "bad.pub"), "is no key; Ed25519"),
        (("--export", archive.checkpoints), "an export does not prove itself alone"),
        (("--export", archive.checkpoints, "--checkpoints", archive.checkpoints,
          "--key", public_file(archive.config)), "is no export"),
    ):  # fmt: skip
        done = fleet_server("audit", "verify", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    assert list((tmp_path / "empty").iterdir()) == []
    with archive.engine.execution_options(write_first=True).begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_record RENAME TO gone")
    assert fleet_server("audit", "verify", "--data", archive.folder).returncode == 2
