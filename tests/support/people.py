"""People for tests: an account with rights, and a token that stands for it."""

import secrets
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_server.access import people
from fleet_server.access.people import Right
from fleet_server.access.roles import Actor, Caller, RoleName
from fleet_server.access.tokens import digest, identify, new_token
from fleet_server.config import load
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import AuditRecord, Person, Role, Tenant, Token

TENANT = "default"
ROOT = Actor.shell("root")
PASSWORD = "correct horse battery staple"


def somebody(engine: Engine, *rights: Right, name: str | None = None) -> dict[str, str]:
    """A new person with ``rights``, as the header that they send."""
    token = new_token()
    people.add(engine, TENANT, ROOT, name or f"p-{secrets.token_hex(4)}", rights, token)
    return {"Authorization": f"Bearer {token}"}


def audited(engine: Engine, action: str) -> list[AuditRecord]:
    """The records of ``action``, the oldest first."""
    with Session(engine) as session:
        return list(session.exec(select(AuditRecord).where(AuditRecord.action == action)))


def add_person(
    engine: Engine, name: str, role: str = RoleName.APPROVER, *, site: str = "", tag: str = ""
) -> str:
    """A person with one role; a token of theirs. Adding one again adds the role, and another token."""
    token = secrets.token_urlsafe(16)
    whose = {"tenant": TENANT, "person": name}
    with writing(engine) as session:
        session.merge(Tenant(id=TENANT, name=TENANT, created_ms=1))
        session.flush()
        if session.get(Person, (TENANT, name)) is None:
            session.add(Person(tenant=TENANT, id=name, name=name, created_ms=1))
            session.flush()
        session.merge(Role(**whose, role=role, site=site, tag=tag))
        session.add(Token(**whose, sha256=digest(token), name=token[:8], created_ms=1))
    return token


def caller(engine: Engine, token: str) -> Caller:
    """Who speaks with ``token``."""
    found = identify(engine, TENANT, token, "127.0.0.1")
    assert found is not None
    return found


def add_person_to(data: Path, name: str, role: str = RoleName.APPROVER) -> str:
    """A person of the server on the folder ``data``; a token of theirs."""
    engine = open_engine(load(data).database_url)
    try:
        return add_person(engine, name, role)
    finally:
        engine.dispose()
