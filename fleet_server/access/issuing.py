"""API tokens: made by whoever is in, never broader than what they came in with, listed and revoked."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import RIGHTS, Actor, Caller, Permission, RoleName, Scope, narrowed
from fleet_server.access.tokens import digest, lives, new_token
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Person, Token
from fleet_server.errors import AccessConflict, LoginRefused, PersonNotFound, TooBroad

API: Final = "api"
SESSION: Final = "session"


@dataclass(frozen=True, slots=True)
class Wish:
    """A token that somebody wants; None and empty narrow nothing. ``lifetime_ms`` is how long it lives."""

    name: str
    role: RoleName | None
    scope: Scope
    lifetime_ms: int


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token as its owner sees it: everything but itself."""

    name: str
    person: str
    kind: str
    role: str
    site: str
    tag: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


def make(engine: Engine, caller: Caller, wish: Wish) -> tuple[str, TokenView]:
    """A new token of the caller, to be shown once, and what is kept of it.

    Raises:
        TooBroad: it would be good for more than the token it is asked for with, or for nothing.
        AccessConflict: a living token has this name.
    """
    token, now_ms = new_token(), wall_ms()
    with writing(engine) as session:
        person = session.get(Person, (caller.tenant, caller.person), with_for_update=True)
        own = session.get(Token, (caller.tenant, caller.token_sha256))
        if person is None or own is None or not lives(own):
            raise LoginRefused(_("the token that asks is not good any more"))
        role, scope = narrower(own, wish)
        if not narrowed(caller.grants, role, scope):
            raise TooBroad(_("{name} has no right there that a token could have").format(name=caller.person))
        if _living(session, caller.tenant, caller.person, wish.name):
            raise AccessConflict(
                _("there is a token {name!r} already; revoke it, or choose another name").format(
                    name=wish.name
                )
            )
        row = Token(
            tenant=caller.tenant,
            sha256=digest(token),
            person=caller.person,
            name=wish.name,
            role=role.value if role else "",
            site=scope.site,
            tag=scope.tag,
            created_ms=now_ms,
            expires_ms=_end(own, now_ms + wish.lifetime_ms),
        )
        session.add(row)
        view = _view(row)
        detail = {key: getattr(view, key) for key in ("name", "role", "site", "tag", "expires_ms")}
        change = Change("token.make", caller.person, None, detail, detail)
        audit.append(session, caller.tenant, caller.actor(Permission.SELF), change)
    return token, view


def list_tokens(engine: Engine, tenant: str, person: str) -> list[TokenView]:
    """The living tokens and sessions of ``person``, the oldest first."""
    query = (
        select(Token)
        .where(Token.tenant == tenant, Token.person == person)
        .order_by(col(Token.created_ms), col(Token.name))
    )
    with Session(engine) as session:
        return [_view(row) for row in session.exec(query) if lives(row)]


def revoke_own(engine: Engine, caller: Caller, name: str) -> TokenView:
    """Let the caller's token ``name`` be worth nothing from now on.

    Raises:
        TooBroad: they came with a narrowed token, which ends none but itself: who finds one shuts nobody out.
        PersonNotFound: they have no such token.
    """
    with Session(engine) as session:
        own = session.get_one(Token, (caller.tenant, caller.token_sha256))
    if own.name != name and (own.role or own.site or own.tag):
        raise TooBroad(_("a token that is narrowed can revoke none but itself"))
    return revoke(engine, caller.tenant, caller.actor(Permission.SELF), caller.person, name)


def revoke(engine: Engine, tenant: str, actor: Actor, person: str, name: str) -> TokenView:
    """Let the token ``name`` of ``person`` be worth nothing from now on.

    Raises:
        PersonNotFound: they have no such token.
    """
    with writing(engine) as session:
        row = _living(session, tenant, person, name)
        if row is None:
            raise PersonNotFound(
                _("{person} has no token {name!r}").format(person=person[:80], name=name[:80])
            )
        row.revoked_ms = wall_ms()
        session.add(row)
        detail = {"name": row.name, "kind": row.kind}
        audit.append(session, tenant, actor, Change("token.revoke", person, detail, None, detail))
        return _view(row)


def narrower(own: Token, wish: Wish) -> tuple[RoleName | None, Scope]:
    """Role and place of a token that ``own`` may make; what is not asked for is as ``own`` has it. Pure.

    Raises:
        TooBroad: ``own`` has less than that.
    """
    cap = RoleName(own.role) if own.role else None
    role = wish.role or cap
    if cap is not None and role is not None and not RIGHTS[role] <= RIGHTS[cap]:
        raise TooBroad(
            _("the token that asks is for {cap} at most; it cannot make one for {role}").format(
                cap=cap.value, role=role.value
            )
        )
    scope = wish.scope.within(Scope(own.site, own.tag))
    if scope is None:
        raise TooBroad(
            _("the token that asks is for site {site!r} and tag {tag!r} alone").format(
                site=own.site, tag=own.tag
            )
        )
    return role, scope


def _end(own: Token, wanted_ms: int) -> int:
    """A token does not outlive the one that made it; a session does, it is the person."""
    if own.kind == SESSION or own.expires_ms is None:
        return wanted_ms
    return min(wanted_ms, own.expires_ms)


def _living(session: Session, tenant: str, person: str, name: str) -> Token | None:
    rows = session.exec(
        select(Token).where(Token.tenant == tenant, Token.person == person, Token.name == name)
    )
    return next((row for row in rows if lives(row)), None)


def _view(row: Token) -> TokenView:
    return TokenView(
        name=row.name,
        person=row.person,
        kind=row.kind,
        role=row.role,
        site=row.site,
        tag=row.tag,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
    )
