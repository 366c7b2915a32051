"""The record of changes as people read it: page by page, and only what they ask for."""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine, or_
from sqlmodel import Session, col, select

from fleet_server.database.models import AuditRecord


class Wanted(NamedTuple):
    """Which records are meant; empty means all. ``action`` may be the beginning of one, up to a dot."""

    person: str = ""
    action: str = ""
    subject: str = ""
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record; ``detail`` is what was written for people, the digests are of what was changed."""

    number: int
    time_ms: int
    person: str
    role: str
    source: str
    action: str
    subject: str
    detail: dict[str, Any]
    before_sha256: str
    after_sha256: str
    previous_sha256: str
    sha256: str


def list_records(engine: Engine, tenant: str, wanted: Wanted, after: int, limit: int) -> list[RecordView]:
    """At most ``limit`` records in their order, from the first one after number ``after`` on."""
    query = (
        select(AuditRecord)
        .where(AuditRecord.tenant == tenant, AuditRecord.number > after)
        .where(AuditRecord.time_ms >= wanted.since_ms)
        .order_by(col(AuditRecord.number))
        .limit(limit)
    )
    if wanted.person:
        query = query.where(AuditRecord.person == wanted.person)
    if wanted.action:
        below = col(AuditRecord.action).startswith(f"{wanted.action}.", autoescape=True)
        query = query.where(or_(col(AuditRecord.action) == wanted.action, below))
    if wanted.subject:
        query = query.where(AuditRecord.subject == wanted.subject)
    with Session(engine) as session:
        return [_view(record) for record in session.exec(query)]


def _view(record: AuditRecord) -> RecordView:
    return RecordView(
        number=record.number,
        time_ms=record.time_ms,
        person=record.person,
        role=record.role,
        source=record.source,
        action=record.action,
        subject=record.subject,
        detail=json.loads(record.detail),
        before_sha256=record.before_sha256,
        after_sha256=record.after_sha256,
        previous_sha256=record.previous_sha256,
        sha256=record.sha256,
    )
