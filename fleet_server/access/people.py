"""Accounts: adding people, what they may do, closing and opening their accounts.

Every change is in the audit by its own transaction, and none of them leaves the tenant without an
administrator: whoever could repair that would have to be let in by somebody else.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access import passwords
from fleet_server.access.issuing import API, SESSION
from fleet_server.access.roles import Actor, RoleName
from fleet_server.access.tokens import digest, lives
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Person, Role, Token
from fleet_server.errors import AccessConflict, PersonNotFound
from fleet_server.identity.openings import withdraw_of

FIRST_MS: Final = 90 * 86_400_000
"""How long the token lives that somebody gets with their account."""

NAME: Final = r"^[a-z0-9][a-z0-9.@_-]{0,62}$"
"""How people are called; an e-mail address can be one."""

_KINDS: Final = (API, SESSION)
"""All kinds of tokens."""

WORD: Final = r"^([a-z0-9-]{1,63})?$"
"""How sites and tags are called, or nothing."""


@dataclass(frozen=True, slots=True)
class Right:
    """A role and where it holds; an empty site or tag narrows nothing."""

    role: RoleName
    site: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class PersonView:
    """An account as administrators see it; ``subject`` is who they are at the OIDC issuer."""

    id: str
    rights: list[Right]
    has_password: bool
    subject: str
    failed_logins: int
    locked_until_ms: int
    created_ms: int
    disabled_ms: int | None


def add(
    engine: Engine, tenant: str, actor: Actor, person: str, rights: Sequence[Right], token: str = ""
) -> PersonView:
    """Make an account with ``rights``, and with ``token`` as its first one if there is any.

    Raises:
        AccessConflict: there is one of this name.
    """
    now_ms = wall_ms()
    try:
        with writing(engine) as session:
            row = Person(tenant=tenant, id=person, name=person, created_ms=now_ms)
            session.add(row)
            session.flush()
            session.add_all(_role(tenant, person, right) for right in set(rights))
            if token:
                session.add(
                    Token(
                        tenant=tenant,
                        sha256=digest(token),
                        person=person,
                        name="first",
                        created_ms=now_ms,
                        expires_ms=now_ms + FIRST_MS,
                    )
                )
            session.flush()
            view = _view(session, row)
            audit.append(session, tenant, actor, Change("person.add", person, None, _picture(view)))
            return view
    except IntegrityError:
        raise AccessConflict(_("there is a person {name!r} already").format(name=person)) from None


def list_people(engine: Engine, tenant: str, after: str, limit: int) -> list[PersonView]:
    """At most ``limit`` accounts in the order of their names, from the first one after ``after`` on."""
    query = select(Person).where(Person.tenant == tenant, Person.id > after).order_by(col(Person.id))
    with Session(engine) as session:
        return [_view(session, row) for row in session.exec(query.limit(limit))]


def grant(engine: Engine, tenant: str, actor: Actor, person: str, right: Right) -> PersonView:
    """Let ``person`` have ``right`` too.

    Raises:
        PersonNotFound: no such person.
    """
    with _changing(engine, tenant, actor, "person.grant", person) as (session, _row):
        if session.get(Role, (tenant, person, right.role, right.site, right.tag)) is None:
            session.add(_role(tenant, person, right))
    return get_person(engine, tenant, person)


def ungrant(engine: Engine, tenant: str, actor: Actor, person: str, right: Right) -> PersonView:
    """Take ``right`` from ``person``.

    Raises:
        PersonNotFound: no such person, or they do not have it.
        AccessConflict: nobody would be an administrator any more.
    """
    with _changing(engine, tenant, actor, "person.ungrant", person) as (session, _row):
        held = session.get(Role, (tenant, person, right.role, right.site, right.tag))
        if held is None:
            raise PersonNotFound(
                _("{name} has no role {role} there").format(name=person, role=right.role.value)
            )
        session.delete(held)
    return get_person(engine, tenant, person)


def disable(engine: Engine, tenant: str, actor: Actor, person: str) -> PersonView:
    """Let in nobody as ``person``, nor any board that they have invited and that has not come yet.

    Sessions, tokens and invitations end for good: :func:`enable` brings none of them back.

    Raises:
        PersonNotFound: no such person.
        AccessConflict: nobody would be an administrator any more.
    """
    ended: dict[str, list[str]] = {}
    with _changing(engine, tenant, actor, "person.disable", person, ended) as (session, row):
        if row.disabled_ms is None:
            row.disabled_ms = wall_ms()
        ended["tokens"] = _end_tokens(session, row, _KINDS)
        ended["invitations"] = withdraw_of(session, tenant, person, wall_ms())
    return get_person(engine, tenant, person)


def enable(engine: Engine, tenant: str, actor: Actor, person: str) -> PersonView:
    """Open an account again, also one that wrong passwords have closed for a while.

    Raises:
        PersonNotFound: no such person.
    """
    with _changing(engine, tenant, actor, "person.enable", person) as (_session, row):
        row.disabled_ms = None
        row.failed_logins, row.locked_until_ms = 0, 0
    return get_person(engine, tenant, person)


def set_password(engine: Engine, tenant: str, actor: Actor, person: str, password: str) -> None:
    """Give ``person`` a password in place of the one they had; their sessions end.

    Raises:
        PersonNotFound: no such person.
        PasswordRefused: it is too short, for example.
    """
    kept = passwords.hashed(password, person)
    with _changing(engine, tenant, actor, "person.password", person) as (session, row):
        row.password = kept
        row.failed_logins, row.locked_until_ms = 0, 0
        _end_tokens(session, row, (SESSION,))


def link(engine: Engine, tenant: str, actor: Actor, person: str, subject: str) -> PersonView:
    """Let who the OIDC issuer calls ``subject`` be ``person``; empty for nobody.

    Raises:
        PersonNotFound: no such person.
        AccessConflict: it is somebody else already.
    """
    with _changing(engine, tenant, actor, "person.link", person) as (_session, row):
        row.subject = subject
    return get_person(engine, tenant, person)


def get_person(engine: Engine, tenant: str, person: str) -> PersonView:
    """The account of ``person``.

    Raises:
        PersonNotFound: no such person.
    """
    with Session(engine) as session:
        return _view(session, _require(session, tenant, person))


@contextmanager
def _changing(
    engine: Engine,
    tenant: str,
    actor: Actor,
    action: str,
    person: str,
    told: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[tuple[Session, Person]]:
    """A transaction that changes ``person`` and records it, with what is ``told`` beside by its end."""
    with writing(engine) as session:
        row = _require(session, tenant, person, hold=True)
        before = _picture(_view(session, row))
        yield session, row
        session.add(row)
        session.flush()
        after = _picture(_view(session, row))
        audit.append(session, tenant, actor, Change(action, person, before, after, {**after, **told}))
        # The record above holds the tenant: of two that change people at once, the second one sees the first.
        _require_admin(session, tenant)
        _require_one_subject(session, row)


def _require(session: Session, tenant: str, person: str, *, hold: bool = False) -> Person:
    row = session.get(Person, (tenant, person), with_for_update=hold)
    if row is None:
        raise PersonNotFound(_("there is no person {name!r}").format(name=person[:80]))
    return row


def _require_admin(session: Session, tenant: str) -> None:
    """Somebody can log in who may do everything everywhere."""
    is_theirs = (col(Person.tenant) == Role.tenant) & (col(Person.id) == Role.person)
    found = session.exec(
        select(Role.person)
        .join(Person, is_theirs)
        .where(Role.tenant == tenant, Role.role == RoleName.ADMIN, Role.site == "", Role.tag == "")
        .where(col(Person.disabled_ms).is_(None))
        .limit(1)
    ).first()
    if found is None:
        raise AccessConflict(_("nobody would be an administrator any more; make another one first"))


def _require_one_subject(session: Session, row: Person) -> None:
    others = select(Person.id).where(
        Person.tenant == row.tenant, Person.subject == row.subject, Person.id != row.id
    )
    if row.subject and (other := session.exec(others).first()):
        raise AccessConflict(
            _("{subject!r} is {other} already; unlink them first").format(
                subject=row.subject[:80], other=other
            )
        )


def _end_tokens(session: Session, row: Person, kinds: Collection[str]) -> list[str]:
    """Revoke the living tokens of these kinds; their names."""
    theirs = select(Token).where(Token.tenant == row.tenant, Token.person == row.id)
    living = [token for token in session.exec(theirs.where(col(Token.kind).in_(kinds))) if lives(token)]
    for token in living:
        token.revoked_ms = wall_ms()
        session.add(token)
    return sorted(token.name for token in living)


def _role(tenant: str, person: str, right: Right) -> Role:
    return Role(tenant=tenant, person=person, role=right.role, site=right.site, tag=right.tag)


def _view(session: Session, row: Person) -> PersonView:
    roles = session.exec(select(Role).where(Role.tenant == row.tenant, Role.person == row.id))
    order = list(RoleName)
    rights = [Right(RoleName(role.role), role.site, role.tag) for role in roles]
    return PersonView(
        id=row.id,
        rights=sorted(rights, key=lambda right: (order.index(right.role), right.site, right.tag)),
        has_password=bool(row.password),
        subject=row.subject,
        failed_logins=row.failed_logins,
        locked_until_ms=row.locked_until_ms,
        created_ms=row.created_ms,
        disabled_ms=row.disabled_ms,
    )


def _picture(view: PersonView) -> dict[str, Any]:
    """What the audit keeps of an account."""
    return {
        "rights": [[right.role.value, right.site, right.tag] for right in view.rights],
        "has_password": view.has_password,
        "subject": view.subject,
        "is_disabled": view.disabled_ms is not None,
    }
