"""Factory batches: a number of boards with one image, and the key in it that proves where they come from.

The key only entitles to ask. Its certificate is for signing statements and no client's: no broker lets it in.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import ColumnElement, Engine, true
from sqlmodel import Session, col, func, select

from fleet_protocol.enrollment import claim_name
from fleet_protocol.texts import _
from fleet_server.access.roles import EVERYWHERE, Actor, Scope
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import open_authority
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Claim, FactoryBatch
from fleet_server.errors import Conflict, NotFound

WAITING: Final = "waiting"
APPROVED: Final = "approved"
REJECTED: Final = "rejected"
"""What a claim can be."""


@dataclass(frozen=True, slots=True)
class BatchWish:
    """What a batch shall be: at most ``most`` boards, until ``expires_s`` seconds from now."""

    id: str
    profile: str
    site: str | None
    most: int
    expires_s: int
    csr_pem: str


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as people see it, open, closed or expired. ``claims`` are those that were not rejected."""

    id: str
    profile: str
    site: str | None
    most: int
    claims: int
    made_by: str
    state: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class BatchMade:
    """A new batch, and what its image carries beside the key: certificate, server, and pinned authority."""

    batch: BatchView
    certificate_pem: str
    url: str
    ca_sha256: str


def create_batch(engine: Engine, config: ServerConfig, wish: BatchWish, actor: Actor) -> BatchMade:
    """Make a batch and certify its key.

    Raises:
        CsrRefused: the request is not one of this batch.
        Conflict: there is a batch of this name.
    """
    authority, now_ms = open_authority(config.authority, may_make=False), wall_ms()
    certificate = authority.issue_for_claims(wish.id, wish.csr_pem.encode(), wish.expires_s)
    with writing(engine) as session:
        if session.get(FactoryBatch, (config.tenant, wish.id)) is not None:
            raise Conflict(_("there is a batch {batch!r} already").format(batch=wish.id))
        row = FactoryBatch(
            tenant=config.tenant,
            id=wish.id,
            profile=wish.profile,
            site=wish.site or "",
            most=wish.most,
            claim_pem=certificate.public_bytes(Encoding.PEM).decode(),
            made_by=actor.person,
            created_ms=now_ms,
            expires_ms=now_ms + wish.expires_s * 1000,
        )
        session.add(row)
        session.flush()
        view = view_of(session, row, now_ms)
        told = {
            "profile": view.profile,
            "site": view.site or "",
            "most": view.most,
            "expires_ms": view.expires_ms,
        }
        append(
            session,
            config.tenant,
            actor,
            Change("batch.create", claim_name(view.id), after=told, detail=told),
        )
    return BatchMade(
        view, authority.chain(certificate).decode(), config.device_url, authority.met_fingerprint
    )


def at_sites(scopes: Collection[Scope]) -> ColumnElement[bool]:
    """Whether a batch is for boards within one of ``scopes``; they have no tags yet, so none finds them."""
    if EVERYWHERE in scopes:
        return true()
    return col(FactoryBatch.site).in_([scope.site for scope in scopes if not scope.tag])


def list_batches(
    engine: Engine, tenant: str, after: str, limit: int, scopes: Collection[Scope]
) -> list[BatchView]:
    """At most ``limit`` batches within ``scopes`` in the order of their names, those after ``after``."""
    query = select(FactoryBatch).where(
        FactoryBatch.tenant == tenant, FactoryBatch.id > after, at_sites(scopes)
    )
    with Session(engine) as session:
        rows = session.exec(query.order_by(col(FactoryBatch.id)).limit(limit)).all()
        return [view_of(session, row, wall_ms()) for row in rows]


def close_batch(engine: Engine, tenant: str, batch: str, actor: Actor) -> BatchView:
    """Let no further board of ``batch`` ask; those that have asked can still be decided about.

    Raises:
        NotFound: there is no such batch.
    """
    now_ms = wall_ms()
    with writing(engine) as session:
        row = find_batch(session, tenant, batch)
        if row.closed_ms is None:
            row.closed_ms = now_ms
            session.add(row)
            append(session, tenant, actor, Change("batch.close", claim_name(batch)))
        return view_of(session, row, now_ms)


def batch_site(engine: Engine, tenant: str, batch: str) -> str | None:
    """Where the boards of ``batch`` will stand.

    Raises:
        NotFound: there is no such batch.
    """
    with Session(engine) as session:
        return find_batch(session, tenant, batch).site or None


def find_batch(session: Session, tenant: str, batch: str) -> FactoryBatch:
    """The row of ``batch``, locked until the end of the transaction.

    Raises:
        NotFound: there is no such batch.
    """
    row = session.get(FactoryBatch, (tenant, batch), with_for_update=True)
    if row is None:
        raise NotFound(_("there is no batch {batch!r}").format(batch=batch[:80]))
    return row


def state_of(row: FactoryBatch, now_ms: int) -> str:
    """Whether further boards of the batch may ask."""
    if row.closed_ms is not None:
        return "closed"
    return "open" if row.expires_ms > now_ms else "expired"


def boards_in(session: Session, row: FactoryBatch) -> int:
    """How many claims of the batch were not rejected."""
    return session.exec(select(func.count()).where(*_living(row))).one()


def has_serial(session: Session, row: FactoryBatch, serial: str) -> bool:
    """Whether one of them is of a board that says the serial number ``serial``."""
    query = select(Claim.id).where(*_living(row), Claim.serial == serial)
    return session.exec(query).first() is not None


def view_of(session: Session, row: FactoryBatch, now_ms: int) -> BatchView:
    """The batch as people see it."""
    return BatchView(
        id=row.id,
        profile=row.profile,
        site=row.site or None,
        most=row.most,
        claims=boards_in(session, row),
        made_by=row.made_by,
        state=state_of(row, now_ms),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
    )


def _living(row: FactoryBatch) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Claim.tenant) == row.tenant,
        col(Claim.batch) == row.id,
        col(Claim.state) != REJECTED,
    )
