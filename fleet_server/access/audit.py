"""The record of every change: who, when, from where, what, and what it was before.

Each record carries the digest of the one before it in its tenant, so that a row that is altered, taken
away or moved breaks the chain. A record is written in the transaction of the change: there is never one
without the other.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlmodel import Session, col, select

from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.models import AuditRecord, Tenant

BEGINNING: Final = "0" * 64
"""What the first record of a tenant has as the digest before it."""

_SUBJECT: Final = 200


class Change(NamedTuple):
    """What was done to what. The record keeps digests of ``before`` and ``after``, which JSON can hold.

    What people shall read of it belongs into ``detail``, which never holds a secret.
    """

    action: str
    subject: str
    before: object = None
    after: object = None
    detail: Mapping[str, Any] = {}


def append(session: Session, tenant: str, actor: Actor, change: Change) -> AuditRecord:
    """Add a record to the chain of ``tenant``, in the transaction of ``session``."""
    # Two transactions of PostgreSQL must not both go on from one record; SQLite has one writer at a time.
    # Not the stronger lock, for which every row that names the tenant would have to wait.
    session.exec(select(Tenant).where(Tenant.id == tenant).with_for_update(key_share=True)).one()
    last = session.exec(
        select(AuditRecord)
        .where(AuditRecord.tenant == tenant)
        .order_by(col(AuditRecord.number).desc())
        .limit(1)
    ).first()
    record = AuditRecord(
        tenant=tenant,
        number=last.number + 1 if last else 1,
        time_ms=wall_ms(),
        person=actor.person,
        role=actor.role,
        source=actor.source,
        action=change.action,
        subject=change.subject[:_SUBJECT],
        before_sha256=digest_of(change.before),
        after_sha256=digest_of(change.after),
        detail=canonical(change.detail),
        previous_sha256=last.sha256 if last else BEGINNING,
        sha256="",
    )
    record.sha256 = digest(record)
    session.add(record)
    session.flush()
    return record


def digest(record: AuditRecord) -> str:
    """What the chain holds of ``record``: every field of it but this digest itself."""
    fields = record.model_dump(exclude={"sha256"})
    return hashlib.sha256(canonical(fields).encode()).hexdigest()


def digest_of(content: object) -> str:
    """The digest of ``content``; empty for nothing."""
    return "" if content is None else hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(content: object) -> str:
    """``content`` as JSON that is always the same text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
