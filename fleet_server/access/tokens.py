"""Tokens: whom one stands for, and the one that a new installation makes for whoever may read its folder.

Only a token's SHA-256 is in the database: it has 256 random bits, so nothing slower is needed.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_server.access.roles import Actor, Caller, Grant, RoleName, Scope, narrowed
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Person, Role, Tenant, Token
from fleet_server.files import write_durably

OPERATOR: Final = "operator"
"""The person that the first token belongs to, with the role of an administrator."""

_LOCAL: Final = "local"
_LOCAL_TOKEN: Final = f"{OPERATOR}/{_LOCAL}"
"""How the record of changes names it."""

_TOKEN_BYTES: Final = 32


def provide_token(engine: Engine, path: Path, tenant: str) -> None:
    """See to it that ``path`` holds a token that the database knows; a lost file revokes its token."""
    try:
        token = path.read_text("ascii").strip()
    except FileNotFoundError:
        token = new_token()
        write_durably(path, token.encode() + b"\n")
    now_ms = wall_ms()
    with writing(engine) as session:
        _provide_operator(session, tenant, now_ms)
        # Anybody else may have named a token so.
        mine = (Token.tenant == tenant, Token.person == OPERATOR, Token.name == _LOCAL)
        for old in session.exec(select(Token).where(*mine)).all():
            if old.sha256 != digest(token) and old.revoked_ms is None:
                old.revoked_ms = now_ms
                _note(session, tenant, Change("token.revoke", _LOCAL_TOKEN, old.sha256))
        if session.get(Token, (tenant, digest(token))) is None:
            session.add(
                Token(tenant=tenant, sha256=digest(token), person=OPERATOR, name=_LOCAL, created_ms=now_ms)
            )
            _note(session, tenant, Change("token.make", _LOCAL_TOKEN, None, digest(token)))


def identify(engine: Engine, tenant: str, token: str, source: str) -> Caller | None:
    """Who speaks with ``token`` from the address ``source``; None where it is worth nothing now."""
    with Session(engine) as session:
        known = session.get(Token, (tenant, digest(token)))
        if known is None or not lives(known):
            return None
        person = session.get(Person, (tenant, known.person))
        if person is None or person.disabled_ms is not None:
            return None
        grants = grants_of(session, tenant, known.person)
    cap = RoleName(known.role) if known.role else None
    left = narrowed(grants, cap, Scope(known.site, known.tag))
    return Caller(tenant, known.person, left, known.sha256, source)


def grants_of(session: Session, tenant: str, person: str) -> tuple[Grant, ...]:
    """What ``person`` may do, whatever token they use; always in the same order."""
    rows = session.exec(select(Role).where(Role.tenant == tenant, Role.person == person))
    return tuple(sorted(Grant.of(RoleName(row.role), Scope(row.site, row.tag)) for row in rows))


def lives(token: Token) -> bool:
    """Whether ``token`` is neither revoked nor past its end."""
    return token.revoked_ms is None and (token.expires_ms is None or token.expires_ms > wall_ms())


def new_token() -> str:
    """A token that nobody can guess; to be shown once."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest(token: str) -> str:
    """What the database keeps of ``token``."""
    return hashlib.sha256(token.encode()).hexdigest()


def _provide_operator(session: Session, tenant: str, now_ms: int) -> None:
    if session.get(Tenant, tenant) is None:
        session.add(Tenant(id=tenant, name=tenant, created_ms=now_ms))
        session.flush()
    if session.get(Person, (tenant, OPERATOR)) is None:
        session.add(Person(tenant=tenant, id=OPERATOR, name=OPERATOR, created_ms=now_ms))
        session.flush()
        session.add(Role(tenant=tenant, person=OPERATOR, role="admin"))
        session.flush()
        _note(session, tenant, Change("person.add", OPERATOR, detail={"role": "admin"}))


def _note(session: Session, tenant: str, change: Change) -> None:
    audit.append(session, tenant, Actor.system("serve"), change)
