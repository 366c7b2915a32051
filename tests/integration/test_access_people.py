"""Accounts, passwords and tokens in the database, on both kinds of it."""

import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_server.access import issuing, lockout, passwords, people
from fleet_server.access.door import SESSION_MS, Door
from fleet_server.access.issuing import Wish
from fleet_server.access.people import Right
from fleet_server.access.roles import EVERYWHERE, Caller, Permission, RoleName, Scope
from fleet_server.access.tokens import digest, identify, new_token
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import AuditRecord, Person, Tenant, Token
from fleet_server.errors import (
    AccessConflict,
    LoginRefused,
    PasswordRefused,
    PersonNotFound,
    TooBroad,
)
from tests.support.people import PASSWORD, ROOT, TENANT, audited

ADMIN = Right(RoleName.ADMIN)
VIEWER = Right(RoleName.VIEWER)


@pytest.fixture
def tenant(engine: Engine) -> Engine:
    """A tenant with one administrator, ann."""
    with writing(engine) as session:
        session.add(Tenant(id=TENANT, name=TENANT, created_ms=1))
    people.add(engine, TENANT, ROOT, "ann", [ADMIN])
    return engine


@pytest.fixture
def door(tenant: Engine, cheap: None) -> Door:
    people.set_password(tenant, TENANT, ROOT, "ann", PASSWORD)
    return Door(tenant, TENANT, None)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of the same kind that take a millisecond, where their cost is not what is tried."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(1, 1024, 1))
    passwords._nobodys.cache_clear()


def row(engine: Engine, person: str = "ann") -> Person:
    with Session(engine) as session:
        return session.get_one(Person, (TENANT, person))


def caller_of(engine: Engine, token: str) -> Caller:
    caller = identify(engine, TENANT, token, "192.0.2.1")
    assert caller is not None
    return caller


def unlock(engine: Engine) -> None:
    """As if the wait were over."""
    with writing(engine) as session:
        person = session.get_one(Person, (TENANT, "ann"))
        person.locked_until_ms = 0
        session.add(person)


def test_a_person_is_added_given_roles_and_listed(tenant: Engine) -> None:
    people.add(tenant, TENANT, ROOT, "bob", [VIEWER])
    north = Right(RoleName.TECHNICIAN, "north")
    people.grant(tenant, TENANT, ROOT, "bob", north)
    people.grant(tenant, TENANT, ROOT, "bob", north)
    ann, bob = people.list_people(tenant, TENANT, "", 10)
    assert (ann.id, ann.rights, bob.id, bob.rights) == ("ann", [ADMIN], "bob", [VIEWER, north])
    assert [one.id for one in people.list_people(tenant, TENANT, "ann", 1)] == ["bob"]
    assert people.ungrant(tenant, TENANT, ROOT, "bob", VIEWER).rights == [north]
    with pytest.raises(PersonNotFound, match="has no role viewer there"):
        people.ungrant(tenant, TENANT, ROOT, "bob", VIEWER)
    with pytest.raises(PersonNotFound, match="there is no person 'eve'"):
        people.grant(tenant, TENANT, ROOT, "eve", north)
    with pytest.raises(AccessConflict, match="there is a person 'bob' already"):
        people.add(tenant, TENANT, ROOT, "bob", [ADMIN])


def test_every_change_of_an_account_is_in_the_audit(tenant: Engine) -> None:
    people.set_password(tenant, TENANT, ROOT, "ann", PASSWORD)
    people.add(tenant, TENANT, ROOT, "bob", [])
    people.grant(tenant, TENANT, ROOT, "bob", VIEWER)
    people.ungrant(tenant, TENANT, ROOT, "bob", VIEWER)
    people.link(tenant, TENANT, ROOT, "bob", "sub-1")
    people.disable(tenant, TENANT, ROOT, "bob")
    people.enable(tenant, TENANT, ROOT, "bob")
    with Session(tenant) as session:
        records = session.exec(select(AuditRecord).order_by(AuditRecord.number)).all()  # type: ignore[arg-type]
    assert [(one.action, one.subject) for one in records] == [
        ("person.add", "ann"),
        ("person.password", "ann"),
        ("person.add", "bob"),
        ("person.grant", "bob"),
        ("person.ungrant", "bob"),
        ("person.link", "bob"),
        ("person.disable", "bob"),
        ("person.enable", "bob"),
    ]
    assert {(one.person, one.role, one.source) for one in records} == {("root", "shell", "localhost")}
    assert records[3].before_sha256 == records[2].after_sha256 != records[3].after_sha256
    assert PASSWORD not in "".join(one.detail for one in records)
    assert "argon2" not in "".join(one.detail for one in records)


@pytest.mark.parametrize(
    "take",
    [
        lambda engine: people.ungrant(engine, TENANT, ROOT, "ann", ADMIN),
        lambda engine: people.disable(engine, TENANT, ROOT, "ann"),
    ],
)
def test_the_last_administrator_stays_one(tenant: Engine, take: Callable[[Engine], object]) -> None:
    people.add(tenant, TENANT, ROOT, "bob", [Right(RoleName.ADMIN, "north"), Right(RoleName.OPERATOR)])
    before = len(audited(tenant, "person.disable") + audited(tenant, "person.ungrant"))
    with pytest.raises(AccessConflict, match="make another one first"):
        take(tenant)
    assert people.get_person(tenant, TENANT, "ann").rights == [ADMIN]
    assert row(tenant).disabled_ms is None
    assert len(audited(tenant, "person.disable") + audited(tenant, "person.ungrant")) == before
    people.grant(tenant, TENANT, ROOT, "bob", ADMIN)
    take(tenant)


def test_two_administrators_cannot_take_each_other_away_at_once(tenant: Engine) -> None:
    for _round in range(5):
        for name in ("ann", "bob"):
            if name not in {one.id for one in people.list_people(tenant, TENANT, "", 9)}:
                people.add(tenant, TENANT, ROOT, name, [])
            people.grant(tenant, TENANT, ROOT, name, ADMIN)
        together = threading.Barrier(2)

        def take(name: str, together: threading.Barrier = together) -> bool:
            together.wait()
            try:
                people.ungrant(tenant, TENANT, ROOT, name, ADMIN)
            except AccessConflict:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(take, ("ann", "bob"))) == [False, True]


def test_a_subject_is_one_person(tenant: Engine) -> None:
    people.add(tenant, TENANT, ROOT, "bob", [])
    people.link(tenant, TENANT, ROOT, "ann", "sub-1")
    with pytest.raises(AccessConflict, match="'sub-1' is ann already"):
        people.link(tenant, TENANT, ROOT, "bob", "sub-1")
    people.link(tenant, TENANT, ROOT, "ann", "")
    assert people.link(tenant, TENANT, ROOT, "bob", "sub-1").subject == "sub-1"
    assert people.link(tenant, TENANT, ROOT, "ann", "").subject == ""


@pytest.mark.parametrize("password", ["", "short", "eleven char", "x" * 257, "ann.of.the.north"])
def test_a_password_that_is_none_is_refused(tenant: Engine, password: str) -> None:
    name = "ann.of.the.north"
    people.add(tenant, TENANT, ROOT, name, [])
    with pytest.raises(PasswordRefused):
        people.set_password(tenant, TENANT, ROOT, name, password)
    assert row(tenant, name).password == ""


def test_a_password_opens_a_session_that_ends(door: Door, tenant: Engine) -> None:
    opened = door.with_password("ann", PASSWORD, "192.0.2.1")
    caller = caller_of(tenant, opened.token)
    assert (caller.person, caller.may_everywhere(Permission.PEOPLE_MANAGE)) == ("ann", True)
    with Session(tenant) as session:
        (kept,) = session.exec(select(Token)).all()
    assert (kept.sha256, kept.kind) == (digest(opened.token), "session")
    assert kept.expires_ms == opened.expires_ms == kept.created_ms + SESSION_MS
    (record,) = audited(tenant, "session.open")
    assert (record.person, record.role, record.source) == ("ann", "admin", "192.0.2.1")
    assert opened.token not in record.detail
    door.close(caller)
    assert identify(tenant, TENANT, opened.token, "") is None
    assert len(audited(tenant, "session.close")) == 1


@pytest.mark.attack
def test_a_session_is_over_at_its_end(door: Door, tenant: Engine) -> None:
    opened = door.with_password("ann", PASSWORD, "")
    with writing(tenant) as session:
        kept = session.get_one(Token, (TENANT, digest(opened.token)))
        kept.expires_ms = wall_ms()
        session.add(kept)
    assert identify(tenant, TENANT, opened.token, "") is None
    door.with_password("ann", PASSWORD, "")
    with Session(tenant) as session:
        assert session.get(Token, (TENANT, digest(opened.token))) is None, "what is over is cleared away"


@pytest.mark.attack
@pytest.mark.parametrize("is_closed", [True, False])
def test_sessions_end_with_the_password_and_the_account(door: Door, tenant: Engine, is_closed: bool) -> None:
    people.add(tenant, TENANT, ROOT, "bob", [ADMIN])
    session = door.with_password("ann", PASSWORD, "").token
    api, _view = issuing.make(tenant, caller_of(tenant, session), Wish("ci", None, EVERYWHERE, 10**9))
    if not is_closed:
        people.set_password(tenant, TENANT, ROOT, "ann", PASSWORD + "!")
    else:
        people.disable(tenant, TENANT, ROOT, "ann")
        assert identify(tenant, TENANT, api, "") is None
        with pytest.raises(LoginRefused):
            door.with_password("ann", PASSWORD, "")
        people.enable(tenant, TENANT, ROOT, "ann")
    assert identify(tenant, TENANT, session, "") is None
    assert (identify(tenant, TENANT, api, "") is None) is is_closed, "who comes back makes other tokens"
    if is_closed:
        (record,) = audited(tenant, "person.disable")
        (name, _other) = json.loads(record.detail)["tokens"]
        assert name == "ci"


@pytest.mark.attack
def test_wrong_passwords_close_the_account_for_longer_and_longer(door: Door, tenant: Engine) -> None:
    waits = []
    for _number in range(8):
        with pytest.raises(LoginRefused):
            door.with_password("ann", "wrong password", "192.0.2.9")
        person = row(tenant)
        waits.append(max(0, person.locked_until_ms - wall_ms()))
        if waits[-1] > 3_000:  # the shorter ones may be over by now
            with pytest.raises(LoginRefused):
                door.with_password("ann", PASSWORD, "192.0.2.9")
            assert row(tenant).failed_logins == person.failed_logins, "nothing is tried meanwhile"
        unlock(tenant)
    assert waits[:4] == [0, 0, 0, 0]
    assert all(before < after for before, after in itertools.pairwise(waits[3:]))
    assert door.with_password("ann", PASSWORD, "").person == "ann"
    assert (row(tenant).failed_logins, row(tenant).locked_until_ms) == (0, 0)
    assert len([one for one in audited(tenant, "session.refused") if one.subject == "ann"]) == 8


@pytest.mark.attack
def test_many_tries_at_once_are_many(door: Door, tenant: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is, nobody of them comes when the first wait is over.
    monkeypatch.setattr(lockout, "FIRST_MS", 60_000)

    def attempt(_number: int) -> None:
        with pytest.raises(LoginRefused):
            door.with_password("ann", "wrong password", "192.0.2.9")

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(attempt, range(12)))
    assert row(tenant).failed_logins == 5, "the fifth closes the account, whoever else has begun already"


@pytest.mark.attack
def test_nobody_fills_the_audit_with_refusals(door: Door, tenant: Engine) -> None:
    before = len(audited(tenant, "session.refused"))
    for number in range(20):
        with pytest.raises(LoginRefused):
            door.with_password(f"nobody-{number}", "wrong password", f"192.0.2.{number}")
    records = audited(tenant, "session.refused")[before:]
    assert len(records) == 1
    assert (records[0].person, records[0].role, records[0].source) == ("", "stranger", "192.0.2.0")


@pytest.mark.attack
def test_a_token_is_never_broader_than_what_made_it(door: Door, tenant: Engine) -> None:
    session = caller_of(tenant, door.with_password("ann", PASSWORD, "").token)
    wish = Wish("north", RoleName.OPERATOR, Scope("north", ""), 1_000_000)
    token, made = issuing.make(tenant, session, wish)
    caller = caller_of(tenant, token)
    assert caller.may_on(Permission.CHANGE_PROPOSE, "north", ())
    assert not caller.may_on(Permission.CHANGE_PROPOSE, "south", ())
    assert not caller.may(Permission.PEOPLE_MANAGE)
    for broader in (
        Wish("a", RoleName.ADMIN, EVERYWHERE, 1),
        Wish("a", RoleName.APPROVER, EVERYWHERE, 1),
        Wish("a", None, Scope("south", ""), 1),
    ):
        with pytest.raises(TooBroad):
            issuing.make(tenant, caller, broader)
    child, view = issuing.make(tenant, caller, Wish("child", None, Scope("", "pumps"), 10**12))
    assert (view.role, view.site, view.tag) == ("operator", "north", "pumps")
    assert view.expires_ms == made.expires_ms, "nor does it live longer"
    assert caller_of(tenant, child).may_on(Permission.CHANGE_PROPOSE, "north", ("pumps",))
    with pytest.raises(AccessConflict, match="'child' already"):
        issuing.make(tenant, caller, Wish("child", None, EVERYWHERE, 1))
    issuing.revoke(tenant, TENANT, ROOT, "ann", "child")
    assert identify(tenant, TENANT, child, "") is None
    issuing.make(tenant, caller, Wish("child", None, EVERYWHERE, 1_000_000))
    with pytest.raises(LoginRefused):
        issuing.make(tenant, Caller(TENANT, "ann", caller.grants, digest(child), ""), wish)
    assert len(audited(tenant, "token.make")) == 3
    assert token not in "".join(one.detail for one in audited(tenant, "token.make"))


@pytest.mark.attack
def test_a_token_for_what_its_maker_has_not_is_refused(tenant: Engine) -> None:
    token = new_token()
    people.add(tenant, TENANT, ROOT, "bob", [Right(RoleName.TECHNICIAN, "north")], token)
    bob = caller_of(tenant, token)
    with pytest.raises(TooBroad, match="no right there"):
        issuing.make(tenant, bob, Wish("south", None, Scope("south", ""), 1_000_000))
    made, _view = issuing.make(tenant, bob, Wish("wide", RoleName.ADMIN, EVERYWHERE, 1_000_000))
    assert caller_of(tenant, made).grants == bob.grants


def test_what_lives_is_listed_for_its_owner(door: Door, tenant: Engine) -> None:
    opened = door.with_password("ann", PASSWORD, "")
    issuing.make(tenant, caller_of(tenant, opened.token), Wish("ci", None, EVERYWHERE, 1_000_000))
    issuing.make(tenant, caller_of(tenant, opened.token), Wish("old", None, EVERYWHERE, -1))
    session, made = issuing.list_tokens(tenant, TENANT, "ann")
    assert (session.kind, made.name) == ("session", "ci")
    assert issuing.list_tokens(tenant, TENANT, "bob") == []
