"""The record of every change: who, when, from where, what, and what it was before.

Each record carries the digest of the one before it in its tenant, so that a row that is altered, taken
away or moved breaks the chain. A record is written in the transaction of the change: there is never one
without the other. What changes outside the database has a record before it and one after (:func:`attempt`).
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import AuditRecord, Tenant

BEGINNING: Final = "0" * 64
"""What the first record of a tenant has as the digest before it."""

_SUBJECT: Final = 200
_SOURCE: Final = 64
_REASON: Final = 200

# JSON that is always the same text, so that anybody can compute the digests anew.
_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


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
    """Add a record to the chain of ``tenant``, in the transaction of ``session``.

    All others that change something in this tenant wait for the end of the transaction from here on: make it
    the last thing that the transaction does.
    """
    # Two transactions of PostgreSQL must not both go on from one record; SQLite has one writer at a time.
    # Not the stronger lock, for which every row that names the tenant would have to wait.
    session.exec(select(Tenant).where(Tenant.id == tenant).with_for_update(key_share=True)).one()
    last = session.exec(
        select(AuditRecord.number, AuditRecord.sha256)
        .where(AuditRecord.tenant == tenant)
        .order_by(col(AuditRecord.number).desc())
        .limit(1)
    ).first()
    number, previous = last or (0, BEGINNING)
    record = AuditRecord(
        tenant=tenant,
        number=number + 1,
        time_ms=wall_ms(),
        person=actor.person,
        role=actor.role,
        source=_storable(actor.source, _SOURCE),
        action=change.action,
        subject=_storable(change.subject, _SUBJECT),
        before_sha256=digest_of(change.before),
        after_sha256=digest_of(change.after),
        detail=canonical(change.detail),
        previous_sha256=previous,
        sha256="",
    )
    record.sha256 = digest(record)
    session.add(record)
    session.flush()
    return record


@contextlib.contextmanager
def attempt(engine: Engine, tenant: str, actor: Actor, change: Change) -> Iterator[None]:
    """Around a change outside the database: a record that it begins, and one that says what came of it.

    ``state`` in their detail is ``begun``, then ``done`` or ``failed``. Where the server dies between them,
    only the first one is there.
    """
    _note(engine, tenant, actor, _in_state(change, "begun"))
    try:
        yield
    except Exception as error:
        # What went wrong counts more than that this could not be noted too.
        with contextlib.suppress(SQLAlchemyError):
            failed = _in_state(change, "failed", reason=str(error)[:_REASON])
            _note(engine, tenant, actor, failed._replace(after=None))
        raise
    _note(engine, tenant, actor, _in_state(change, "done"))


def digest(record: AuditRecord) -> str:
    """What the chain holds of ``record``: every field of it but this digest itself."""
    return digest_of(record.model_dump(exclude={"sha256"}))


def digest_of(content: object) -> str:
    """The digest of ``content``; empty for nothing."""
    return "" if content is None else hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(content: object) -> str:
    """``content`` as JSON that is always the same text."""
    return _JSON.encode(content)


def _note(engine: Engine, tenant: str, actor: Actor, change: Change) -> None:
    with writing(engine) as session:
        append(session, tenant, actor, change)


def _in_state(change: Change, state: str, **more: str) -> Change:
    return change._replace(detail={**change.detail, "state": state, **more})


def _storable(text: str, most: int) -> str:
    """``text`` as both databases hold it: no zeros, no halves of characters, not too long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:most]
