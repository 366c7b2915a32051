"""The director on a real database: signed when asked for, kept, and never going back."""

import threading
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import Engine
from sqlmodel import Session, col, delete, select
from tuf.api.metadata import Snapshot, Targets

from fleet_protocol.targets import Kind, Target
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Device, Directive, Tenant
from fleet_server.errors import NoArtifact, NotFound
from fleet_server.updates.artifacts import target_of
from fleet_server.updates.changes import plan_assign, plan_withdraw
from fleet_server.updates.director import KEPT, Director
from fleet_signing import ceremony
from fleet_signing.metadata import ONLINE_LIFE, decode, now, targets_in
from tests.support.repositories import policy

ONLINE = ceremony.OnlineKeys.generate()
LEAK = (Kind.POLICY, "leak")


@pytest.fixture
def director(engine: Engine) -> Director:
    """A director of two devices and two published releases of a policy."""
    with writing(engine) as session:
        session.add(Tenant(id="city", name="City", created_ms=0))
        session.flush()
        for name in ("gw-1", "gw-2"):
            session.add(Device(tenant="city", id=name, profile="generic", created_ms=0))
        for release in (1, 2):
            session.add(row(policy(release).target))
    return Director(engine, "city", ONLINE)


def row(target: Target) -> Artifact:
    described = target.description
    return Artifact(
        tenant="city",
        sha256=target.sha256,
        kind=described.kind,
        name=described.name,
        version=described.version,
        release=described.release,
        size=target.length,
        manifest=msgspec.json.encode(described).decode(),
        created_ms=0,
    )


def assign(engine: Engine, tenant: str, device: str, what: tuple[Kind, str], release: int) -> None:
    """Make an assignment that was agreed to."""
    arguments = {"device": device, "kind": what[0], "name": what[1], "release": release}
    with writing(engine) as session:
        plan_assign(session, tenant, "", arguments).carry()


def withdraw(engine: Engine, tenant: str, device: str, what: tuple[Kind, str]) -> None:
    """Take one back."""
    arguments = {"device": device, "kind": what[0], "name": what[1]}
    with writing(engine) as session:
        plan_withdraw(session, tenant, "", arguments).carry()


def given(director: Director, device: str = "gw-1") -> list[tuple[str, str]]:
    """What the current set gives ``device``: paths, and the device that is named."""
    signed = decode(director.current(device, now()).targets, Targets).signed
    return [(target.path, target.description.device) for target in targets_in(signed)]


def test_nothing_then_one_release_then_the_next_then_nothing(director: Director, engine: Engine) -> None:
    assert given(director) == []
    assign(engine, "city", "gw-1", LEAK, 1)
    assert given(director) == [("policies/leak/1.toml", "gw-1")]
    assert given(director, "gw-2") == []
    assign(engine, "city", "gw-1", LEAK, 2)
    assert given(director) == [("policies/leak/2.toml", "gw-1")]
    withdraw(engine, "city", "gw-1", LEAK)
    assert given(director) == []


def test_the_same_is_signed_once_and_versions_grow_over_restarts(director: Director, engine: Engine) -> None:
    first = director.current("gw-1", now())
    assert director.current("gw-1", now()) == first
    assert Director(engine, "city", ONLINE).current("gw-1", now()) == first
    versions = [first.version]
    for release in (1, 2, 1):
        assign(engine, "city", "gw-1", LEAK, release)
        versions.append(Director(engine, "city", ONLINE).current("gw-1", now()).version)
    assert versions == sorted(set(versions))


def test_it_is_signed_anew_before_it_expires(director: Director) -> None:
    at = now()
    first = director.current("gw-1", at)
    assert director.current("gw-1", at + ONLINE_LIFE / 2 - timedelta(seconds=1)) == first
    second = director.current("gw-1", at + ONLINE_LIFE / 2)
    assert second.version > first.version
    assert second.expires == at + ONLINE_LIFE * 1.5


def test_another_key_signs_anew(director: Director, engine: Engine) -> None:
    first = director.current("gw-1", now())
    other = Director(engine, "city", ceremony.OnlineKeys.generate())
    assert other.current("gw-1", now()).version > first.version


def test_a_database_out_of_a_backup_offers_no_version_that_devices_have_seen(
    director: Director, engine: Engine
) -> None:
    seen = director.current("gw-1", now())
    with writing(engine) as session:
        session.exec(delete(Directive))
    later = now() + timedelta(seconds=1)
    assert director.current("gw-1", later).version > seen.version


def test_the_last_few_sets_stay_for_a_device_that_reads_slowly(director: Director, engine: Engine) -> None:
    sets = []
    for number in range(KEPT + 2):
        assign(engine, "city", "gw-1", LEAK, 1 + number % 2)
        sets.append(director.current("gw-1", now()))
    director.current("gw-2", now())
    for number, signed in enumerate(reversed(sets)):
        for role, content in ((Snapshot.type, signed.snapshot), (Targets.type, signed.targets)):
            found = director.file("gw-1", f"{signed.version}.{role}.json", now())
            assert found == (content if number < KEPT else None)
    with Session(engine) as session:
        assert len(session.exec(select(Directive).where(Directive.device == "gw-1")).all()) == KEPT


@pytest.mark.parametrize(
    "name", ["1.snapshot.json", "7.timestamp.json", "targets.json", "1.root.json", "x", ""]
)
def test_what_was_never_signed_is_not_there(director: Director, name: str) -> None:
    director.current("gw-1", now())
    assert director.file("gw-1", name, now()) is None


def test_a_stranger_is_signed_nothing(director: Director, engine: Engine) -> None:
    with pytest.raises(NotFound):
        director.file("gw-9", "timestamp.json", now())
    with Session(engine) as session:
        assert session.exec(select(Directive)).all() == []


def test_a_stranger_does_not_wait_for_who_writes(director: Director, engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Device(tenant="city", id="gw-3", profile="generic", created_ms=0))
        session.flush()
        with pytest.raises(NotFound):
            director.file("gw-9", "timestamp.json", now())


def test_what_is_not_published_is_not_assigned(director: Director, engine: Engine) -> None:
    with pytest.raises(NoArtifact, match="release 3 was not published"):
        assign(engine, "city", "gw-1", LEAK, 3)
    for act in (
        lambda: assign(engine, "city", "gw-9", LEAK, 1),
        lambda: withdraw(engine, "city", "gw-9", LEAK),
    ):
        with pytest.raises(NotFound):
            act()
    assert given(director) == []


def test_who_asks_at_once_gets_the_same(director: Director, engine: Engine) -> None:
    found = []
    gate = threading.Barrier(6)

    def ask() -> None:
        gate.wait()
        found.append(Director(engine, "city", ONLINE).current("gw-1", now()))

    threads = [threading.Thread(target=ask) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_a_row_gives_back_what_was_signed(director: Director, engine: Engine) -> None:
    with Session(engine) as session:
        rows = session.exec(select(Artifact).order_by(col(Artifact.release))).all()
    assert [target_of(each) for each in rows] == [policy(1).target, policy(2).target]
