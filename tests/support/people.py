"""People for tests: an account with rights, and a token that stands for it."""

import secrets

from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_server.access import people
from fleet_server.access.people import Right
from fleet_server.access.roles import Actor
from fleet_server.access.tokens import new_token
from fleet_server.database.models import AuditRecord

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
