"""Claims: boards of a factory batch that ask to come in, and what people decide about each of them.

A board is known by its key. It asks again and again with it until there is a decision, and fetches its
certificate the same way; what it asks is proved by the batch's key.
"""

import logging
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.enrollment import (
    STATEMENT_ALGORITHM,
    STATEMENT_TYPE,
    ClaimAnswer,
    ClaimRequest,
    claim_name,
    is_serial,
    request_sha256,
)
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor, Scope
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import open_authority
from fleet_server.authority.signing_requests import requested_key
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Claim, Device, FactoryBatch
from fleet_server.devices.certificates import key_sha256, of_key
from fleet_server.devices.registry import add_device, find_device, taken
from fleet_server.devices.tagging import put
from fleet_server.errors import Conflict, EnrollmentRefused, NotFound
from fleet_server.identity.batches import (
    APPROVED,
    REJECTED,
    WAITING,
    at_sites,
    boards_in,
    find_batch,
    has_serial,
    state_of,
)
from fleet_server.identity.enrollment import Newcomer, Post, admit, enrolled, given_again

_ID_LENGTH: Final = 12
"""Hexadecimal digits of a claim's id: enough among all boards that ever wait, few enough to type."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim as people see it. ``key_sha256`` tells two boards apart that say the same serial number."""

    id: str
    batch: str
    site: str | None
    profile: str
    serial: str
    key_sha256: str
    source: str
    state: str
    device: str
    decided_by: str
    reason: str
    asked_ms: int
    decided_ms: int | None


def ask(engine: Engine, config: ServerConfig, request: ClaimRequest, source: str) -> ClaimAnswer:
    """Queue the board that asks from the address ``source``, or tell it what was decided.

    Raises:
        EnrollmentRefused: its batch did not send it, takes no more boards, or has one of its number already.
        CsrRefused: the request is not one of this batch.
        ServerError: as :func:`fleet_server.identity.enrollment.enroll`.
    """
    with writing(engine) as session:
        batch = _batch(session, config.tenant, request.batch)
        serial = _proved_serial(batch, request)
        key = requested_key(claim_name(batch.id), request.csr_pem.encode())
        row = _claim_of(session, batch, key_sha256(key))
        if row is None:
            row = _queue(session, batch, request, (serial, key_sha256(key), source))
        if row.state == APPROVED:
            # Whoever revokes the device rejects this claim, under the same lock.
            session.get(Device, (config.tenant, row.device), with_for_update={"key_share": True})
            session.refresh(row)
        if row.state != APPROVED:
            return ClaimAnswer(row.id, "rejected" if row.state == REJECTED else "waiting", row.reason)
        certificate, profile = _collect(session, config, row, batch, key, source)
        name, device = row.id, row.device
    authority = open_authority(config.authority, may_make=False)
    return ClaimAnswer(
        name, "approved", enrolled=enrolled(engine, config, authority, device, profile, certificate)
    )


def pending(
    engine: Engine, tenant: str, after: str, limit: int, scopes: Collection[Scope]
) -> list[ClaimView]:
    """At most ``limit`` claims within ``scopes`` that wait, in the order of their ids, after ``after``."""
    query = (
        select(Claim, FactoryBatch)
        .join(
            FactoryBatch, (col(FactoryBatch.tenant) == Claim.tenant) & (col(FactoryBatch.id) == Claim.batch)
        )
        .where(Claim.tenant == tenant, Claim.state == WAITING, Claim.id > after, at_sites(scopes))
    )
    with Session(engine) as session:
        rows = session.exec(query.order_by(col(Claim.id)).limit(limit)).all()
        return [_view(claim, batch) for claim, batch in rows]


def get_claim(engine: Engine, tenant: str, claim: str) -> ClaimView:
    """The claim ``claim``.

    Raises:
        NotFound: there is none.
    """
    with Session(engine) as session:
        row = _find(session, tenant, claim)
        return _view(row, find_batch(session, tenant, row.batch))


def approve(
    engine: Engine, tenant: str, claim: str, device: str, tags: Sequence[str], actor: Actor
) -> ClaimView:
    """Let the board of ``claim`` in as ``device``; it fetches its certificate when it asks next.

    Raises:
        NotFound: there is no such claim.
        Conflict: it was decided about already, or there is such a device.
        LimitReached: these are more tags than there may be.
    """
    with writing(engine) as session:
        row = _undecided(session, tenant, claim)
        batch = find_batch(session, tenant, row.batch)
        if session.get(Device, (tenant, device)) is not None:
            raise taken(device)
        add_device(session, tenant, device, batch.profile, batch.site or None)
        if tags:
            put(session, tenant, device, tags, actor)
        row.device = device
        _decide(session, row, APPROVED, "", actor)
        return _view(row, batch)


def reject(engine: Engine, tenant: str, claim: str, reason: str, actor: Actor) -> ClaimView:
    """Keep the board of ``claim`` out, and tell it why.

    Raises:
        NotFound: there is no such claim.
        Conflict: it was decided about already.
    """
    with writing(engine) as session:
        row = _undecided(session, tenant, claim)
        _decide(session, row, REJECTED, reason, actor)
        return _view(row, find_batch(session, tenant, row.batch))


def _batch(session: Session, tenant: str, name: str) -> FactoryBatch:
    try:
        return find_batch(session, tenant, name)
    except NotFound as error:
        raise EnrollmentRefused(
            "batch_unknown", str(error), _("Is this image for another server? See: fleet device batch list.")
        ) from None


def _proved_serial(batch: FactoryBatch, request: ClaimRequest) -> str:
    """The serial number that the batch's key vouches for, together with this very request.

    The board's clock is not asked: it may be at 1970. What is repeated by somebody else brings only what
    the board itself was told.
    """
    key = x509.load_pem_x509_certificate(batch.claim_pem.encode()).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AssertionError(batch.id)  # noqa: TRY004 - the authority signs no other one
    try:
        told = jwt.decode(
            request.statement,
            key,
            algorithms=[STATEMENT_ALGORITHM],
            issuer=claim_name(batch.id),
            options={
                "require": ["iss", "sub", "csr"],
                "verify_iat": False,
                "verify_exp": False,
                "verify_nbf": False,
            },
        )
        kind = jwt.get_unverified_header(request.statement).get("typ")
    except jwt.InvalidTokenError as error:
        raise _unproved(str(error)) from None
    if kind != STATEMENT_TYPE or told["csr"] != request_sha256(request.csr_pem):
        raise _unproved(_("it is for something else"))
    if not is_serial(told["sub"]):
        raise _unproved(_("its serial number is none"))
    return str(told["sub"])


def _unproved(reason: str) -> EnrollmentRefused:
    return EnrollmentRefused(
        "claim_unproved",
        _("the statement is not signed by the key of its batch ({reason})").format(reason=reason),
        _("Give the board the claim file that 'fleet device batch create' wrote."),
    )


def _claim_of(session: Session, batch: FactoryBatch, key: str) -> Claim | None:
    query = select(Claim).where(
        Claim.tenant == batch.tenant, Claim.batch == batch.id, Claim.key_sha256 == key
    )
    return session.exec(query).first()


def _queue(
    session: Session, batch: FactoryBatch, request: ClaimRequest, board: tuple[str, str, str]
) -> Claim:
    """A new claim of a ``board``: its serial number, the digest of its key, and the address it asks from.

    Raises:
        EnrollmentRefused: the batch takes no more, or has one of this number.
    """
    serial, key, source = board
    state = state_of(batch, wall_ms())
    if state != "open":
        raise EnrollmentRefused(
            f"batch_{state}",
            _("the batch {batch} is {state}").format(batch=batch.id, state=_(state)),
            _("Invite the board instead: fleet device invite NAME. Or make another batch for a new image."),
        )
    if has_serial(session, batch, serial):
        log.warning("batch %s: a second board says that it is %s, from %s", batch.id, serial, source)
        raise EnrollmentRefused(
            "serial_taken",
            _("a board of the number {serial} has asked before, with another key").format(serial=serial),
            _(
                "If it is this one after a new installation, have the earlier claim rejected (fleet device "
                "reject) or the board replaced (fleet device invite NAME --replace). If not, one of the two "
                "is a copy."
            ),
        )
    if boards_in(session, batch) >= batch.most:
        raise EnrollmentRefused(
            "batch_full",
            _("the batch {batch} has as many boards as it may, {most}").format(
                batch=batch.id, most=batch.most
            ),
            _(
                "Somebody may have copied the image: look at 'fleet device pending', "
                "and reject what is not yours."
            ),
        )
    row = Claim(
        tenant=batch.tenant,
        id=uuid.uuid4().hex[:_ID_LENGTH],
        batch=batch.id,
        serial=serial,
        csr_pem=request.csr_pem,
        key_sha256=key,
        source=source,
        state=WAITING,
        asked_ms=wall_ms(),
    )
    session.add(row)
    actor = Actor.device(claim_name(batch.id), source)
    told = {"batch": batch.id, "board": serial, "key_sha256": key}
    append(session, batch.tenant, actor, Change("claim.ask", row.id, after=told, detail=told))
    return row


def _collect(
    session: Session,
    config: ServerConfig,
    row: Claim,
    batch: FactoryBatch,
    key: ec.EllipticCurvePublicKey,
    source: str,
) -> tuple[x509.Certificate, str]:
    """The certificate of an approved board, made when it is first asked for: it lasts from then on.

    Raises:
        EnrollmentRefused: it was collected before, and counts no more.
    """
    device = find_device(session, config.tenant, row.device)
    if any(one.device == row.device for one in of_key(session, config.tenant, row.key_sha256)):
        return given_again(session, config.tenant, row.device, key), device.profile
    authority = open_authority(config.authority, may_make=False)
    newcomer = Newcomer(row.device, device.profile, device.site, row.serial, f"batch {batch.id}")
    actor = Actor.device(row.device, source)
    certificate = admit(session, config, authority, newcomer, key, actor, Post.APPROVED)
    return certificate, device.profile


def _find(session: Session, tenant: str, claim: str) -> Claim:
    row = session.get(Claim, (tenant, claim), with_for_update=True)
    if row is None:
        raise NotFound(_("there is no claim {claim!r}").format(claim=claim[:80]))
    return row


def _undecided(session: Session, tenant: str, claim: str) -> Claim:
    row = _find(session, tenant, claim)
    if row.state != WAITING:
        raise Conflict(
            _("the claim {claim} was {state} by {person} already").format(
                claim=claim, state=_(row.state), person=row.decided_by
            )
        )
    return row


def _decide(session: Session, row: Claim, state: str, reason: str, actor: Actor) -> None:
    row.state, row.reason, row.decided_by, row.decided_ms = state, reason, actor.person, wall_ms()
    session.add(row)
    session.flush()
    told = {"batch": row.batch, "board": row.serial, "device": row.device, "reason": reason}
    action = "claim.approve" if state == APPROVED else "claim.reject"
    append(session, row.tenant, actor, Change(action, row.id, after=told, detail=told))


def _view(row: Claim, batch: FactoryBatch) -> ClaimView:
    return ClaimView(
        id=row.id,
        batch=row.batch,
        site=batch.site or None,
        profile=batch.profile,
        serial=row.serial,
        key_sha256=row.key_sha256,
        source=row.source,
        state=row.state,
        device=row.device,
        decided_by=row.decided_by,
        reason=row.reason,
        asked_ms=row.asked_ms,
        decided_ms=row.decided_ms,
    )
