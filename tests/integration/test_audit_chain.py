"""The chain of records on both databases: never forked, never with a hole, only ever longer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, select

from fleet_server.access.roles import Actor
from fleet_server.access.tokens import provide_token
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.audit.sources import rows
from fleet_server.audit.verification import verify
from fleet_server.database.engine import writing
from fleet_server.database.models import AuditRecord, DeviceGroup
from fleet_server.devices.groups import set_group
from fleet_server.updates import rollouts
from tests.support.actors import SOMEBODY
from tests.support.auditing import TENANT, Archive
from tests.support.rollouts import add_fleet, assigned, begin, move_on, publish


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Archive:
    return Archive(engine, tmp_path / "data")


def require_whole(records: list[AuditRecord]) -> None:
    before = audit.BEGINNING
    for number, record in enumerate(records, 1):
        assert record.number == number
        assert record.previous_sha256 == before
        assert record.sha256 == audit.digest(record)
        before = record.sha256


def test_many_who_write_at_once_make_one_chain(archive: Archive) -> None:
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        barrier.wait()
        for turn in range(15):
            set_group(archive.engine, TENANT, SOMEBODY, f"g-{number}", f"id=gw-{turn}*")

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(write, number) for number in range(6)]:
            done.result()
    records = archive.records()
    assert len(records) == 90
    require_whole(records)


def test_a_change_that_does_not_happen_leaves_no_record_and_no_hole(archive: Archive) -> None:
    archive.add()

    class RefusedError(Exception):
        pass

    def fail() -> None:
        with writing(archive.engine) as session:
            session.add(DeviceGroup(tenant=TENANT, name="north", filter="", created_ms=1))
            audit.append(session, TENANT, SOMEBODY, Change("group.set", "north"))
            raise RefusedError

    with pytest.raises(RefusedError):
        fail()
    archive.add()
    records = archive.records()
    assert len(records) == 2
    require_whole(records)
    with Session(archive.engine) as session:
        assert session.exec(select(DeviceGroup)).all() == []


def test_a_record_says_who_what_and_from_where(archive: Archive) -> None:
    set_group(archive.engine, TENANT, SOMEBODY, "north", "site=north")
    set_group(archive.engine, TENANT, SOMEBODY, "north", "site=south")
    first, second = archive.records()
    assert (second.person, second.role, second.source) == ("kim", "operator", "192.0.2.7")
    assert (second.action, second.subject) == ("group.set", "north")
    assert second.before_sha256 == first.after_sha256 == audit.digest_of("site=north")
    assert first.before_sha256 == ""
    assert second.detail == '{"before":"site=north","devices":0,"filter":"site=south"}'


@pytest.mark.attack
@pytest.mark.parametrize("subject", ["a\0b", "\ud800", "x" * 5000, "\x1b[2J\n", ""])
def test_what_a_stranger_names_is_recorded_whatever_it_is(archive: Archive, subject: str) -> None:
    with writing(archive.engine) as session:
        audit.append(
            session, TENANT, Actor("a", "b", subject), Change("x", subject, detail={"said": subject})
        )
    records = archive.records()
    require_whole(records)
    assert len(records[0].subject) <= 200
    assert verify(rows(archive.engine, TENANT), iter(())).is_whole


STATEMENTS = {
    "update": "UPDATE audit_record SET person = 'nobody' WHERE number = 1",
    "delete": "DELETE FROM audit_record WHERE number = 1",
    "truncate": "TRUNCATE audit_record",
    "replace": "INSERT OR REPLACE INTO audit_record SELECT tenant, number, time_ms, 'nobody', role, source,"
    " action, subject, before_sha256, after_sha256, detail, previous_sha256, sha256 FROM audit_record",
}
ONLY_IN = {"truncate": "postgresql", "replace": "sqlite"}


@pytest.mark.parametrize("how", STATEMENTS)
def test_the_table_only_grows(archive: Archive, how: str) -> None:
    if ONLY_IN.get(how, archive.engine.dialect.name) != archive.engine.dialect.name:
        pytest.skip("the other database's statement")
    archive.add()
    before = archive.records()
    with pytest.raises(DBAPIError, match="append-only"), archive.engine.begin() as connection:
        connection.execute(text(STATEMENTS[how]))
    assert archive.records() == before


def test_the_first_start_and_a_lost_token_are_recorded(archive: Archive) -> None:
    path = archive.folder / "api.token"
    provide_token(archive.engine, path, TENANT)
    provide_token(archive.engine, path, TENANT)
    assert [one.action for one in archive.records()] == ["person.add", "token.make"]
    token = path.read_text().strip()
    path.unlink()
    provide_token(archive.engine, path, TENANT)
    records = archive.records()
    assert [one.action for one in records][2:] == ["token.revoke", "token.make"]
    assert {one.person for one in records} == {"serve"}
    assert not any(token in str(one) for one in records)


def test_what_a_rollout_does_by_itself_and_its_end_are_recorded(archive: Archive) -> None:
    engine = archive.engine
    add_fleet(engine, 2)
    publish(engine, 1, 2)
    identity = begin(engine, "1", "100%")
    move_on(engine)
    rollouts.act(engine, TENANT, identity, rollouts.Action.ABORT, SOMEBODY)
    told = [(one.action, one.person) for one in archive.records() if one.subject == identity]
    assert told == [("rollout.advance", "rollouts"), ("rollout.abort", "kim")]
    assert assigned(engine) == {}
    require_whole(archive.records())


def test_outside_the_database_a_change_has_a_beginning_and_an_outcome(archive: Archive) -> None:
    change = Change("artifact.upload", "models/x/1.tar", None, "bytes")
    with audit.attempt(archive.engine, TENANT, SOMEBODY, change):
        (begun,) = archive.records()
    assert begun.detail == '{"state":"begun"}'

    def fail() -> None:
        with audit.attempt(archive.engine, TENANT, SOMEBODY, change):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    _first, done, again, failed = archive.records()
    assert [one.detail for one in (done, again)] == ['{"state":"done"}', '{"state":"begun"}']
    assert failed.detail == '{"reason":"[Errno 28] No space left on device","state":"failed"}'
    assert (done.after_sha256, failed.after_sha256) == (audit.digest_of("bytes"), "")
