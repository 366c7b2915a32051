"""Taking back what a device may prove with: for good, or until somebody lets it in again.

This writes down what shall be. That the broker obeys is the guard's work
(:mod:`fleet_server.identity.revocation`); whoever answers a device over HTTPS asks :func:`is_revoked`.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.database.models import Certificate, Device, Hold
from fleet_server.errors import NotFound, RevocationConflict
from fleet_server.identity.openings import openings

ON_HOLD: Final = "certificateHold"
"""The reason of a certificate that may come back."""

TAKEN_BACK: Final = "removeFromCRL"
"""The reason of one that has come back, until the broker obeys."""

HELD: Final = "device.held"
FLOODING: Final = "device.flooding"
"""The health codes that a hold goes by: somebody wanted it, or the device sends too much."""

RELEASE: Final = "device.release"
"""What the audit calls it that a device may come back."""

_REASON: Final = 200


class Cause(StrEnum):
    """Why a certificate counts no more, in the words of RFC 5280."""

    KEY_COMPROMISE = "keyCompromise"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    WITHDRAWN = "privilegeWithdrawn"


def revoke(  # noqa: PLR0913 - who, what, why and when
    session: Session,
    tenant: str,
    device: str,
    *,
    serials: Collection[str] | None = None,
    cause: Cause = Cause.WITHDRAWN,
    reason: str,
    actor: Actor,
    now_ms: int,
) -> list[str]:
    """Revoke the certificates of ``device`` for good, or those of ``serials``; which were not yet.

    Those on hold are among them. With all of them ends whatever else would let a board in as this device.
    ``reason`` is for people.

    Raises:
        NotFound: there is no such device, or no such certificate of it.
    """
    _require(session, tenant, device)
    wanted = None if serials is None else set(serials)
    if wanted is not None and wanted - {one.serial for one in _certificates(session, tenant, device)}:
        raise NotFound(_("{device!r} has no such certificate").format(device=device))
    told: dict[str, list[str]] = {}
    if wanted is None:
        told = close_openings(session, tenant, device, actor.person, reason, now_ms)
    taken = take_back(session, tenant, device, cause, now_ms, wanted)
    if taken or any(told.values()):
        _note(session, tenant, actor, "device.revoke", device, reason, taken, cause=cause.value, **told)
    return taken


def close_openings(
    session: Session, tenant: str, device: str, person: str, reason: str, now_ms: int
) -> dict[str, list[str]]:
    """End what would still let a board in as ``device``, whose row is locked; which that was."""
    found = openings(session, tenant, [device], now_ms)
    found.close(session, person, reason[:_REASON], now_ms)
    return found.told()


def take_back(
    session: Session,
    tenant: str,
    device: str,
    cause: Cause,
    now_ms: int,
    serials: Collection[str] | None = None,
) -> list[str]:
    """Let the certificates of ``device`` count no more, and the broker obey it anew; which they are.

    Those on hold are among them, and with all of them the hold itself ends. The device's row is locked by
    the caller, who also writes the record.
    """
    fresh = [
        one
        for one in _certificates(session, tenant, device)
        if (one.revoked_ms is None or one.revoked_reason == ON_HOLD)
        and (serials is None or one.serial in serials)
    ]
    for one in fresh:
        one.revoked_ms = one.revoked_ms or now_ms
        one.revoked_reason, one.enforced_ms = cause.value, None
        session.add(one)
    if serials is None and (held := session.get(Hold, (tenant, device))) is not None:
        session.delete(held)
    session.flush()
    return [one.serial for one in fresh]


def hold(
    session: Session,
    tenant: str,
    device: str,
    *,
    code: str = HELD,
    reason: str,
    actor: Actor,
    now_ms: int,
) -> list[str]:
    """Keep ``device`` out until :func:`release`; which of its certificates were in use.

    Nothing happens to one that is held already.

    Raises:
        NotFound: there is no such device.
        RevocationConflict: all that it had were revoked for good.
    """
    _require(session, tenant, device)
    if session.get(Hold, (tenant, device)) is not None:
        return []
    had = _certificates(session, tenant, device)
    living = [one for one in had if one.revoked_ms is None]
    if had and not living:
        raise RevocationConflict(
            _("{device!r} has no certificate that counts; it is kept out already").format(device=device)
        )
    for one in living:
        one.revoked_ms, one.revoked_reason, one.enforced_ms = now_ms, ON_HOLD, None
        session.add(one)
    session.add(Hold(tenant=tenant, device=device, since_ms=now_ms, code=code, reason=reason[:_REASON]))
    serials = [one.serial for one in living]
    _note(session, tenant, actor, "device.hold", device, reason, serials, code=code)
    return serials


def release(
    session: Session, tenant: str, device: str, *, reason: str, actor: Actor, now_ms: int
) -> list[str]:
    """Let ``device`` in again with the certificates that were on hold; which they are.

    Raises:
        NotFound: there is no such device.
        RevocationConflict: it is not on hold.
    """
    _require(session, tenant, device)
    held = session.get(Hold, (tenant, device))
    if held is None:
        raise RevocationConflict(_("{device!r} is not on hold").format(device=device))
    session.delete(held)
    found = [one for one in _certificates(session, tenant, device) if one.revoked_reason == ON_HOLD]
    for one in found:
        one.revoked_ms, one.revoked_reason, one.enforced_ms = None, TAKEN_BACK, None
        session.add(one)
    serials = [one.serial for one in found]
    _note(session, tenant, actor, RELEASE, device, reason, serials, held_ms=now_ms - held.since_ms)
    return serials


def is_revoked(certificate: Certificate | None) -> bool:
    """Whether ``certificate`` counts no more, for good or for now. One that is not known never did."""
    return certificate is None or certificate.revoked_ms is not None


def _require(session: Session, tenant: str, device: str) -> None:
    # Locked, so that no certificate is issued to it meanwhile that would be left out.
    if session.get(Device, (tenant, device), with_for_update={"key_share": True}) is None:
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))


def _certificates(session: Session, tenant: str, device: str) -> list[Certificate]:
    """All of the device's, locked, so that what is decided of them still holds when it is written."""
    query = select(Certificate).where(Certificate.tenant == tenant, Certificate.device == device)
    return list(session.exec(query.order_by(col(Certificate.serial)).with_for_update()))


def _note(
    session: Session,
    tenant: str,
    actor: Actor,
    action: str,
    device: str,
    reason: str,
    serials: Sequence[str],
    **more: object,
) -> None:
    detail = {"reason": reason[:_REASON], "serials": list(serials), **more}
    append(session, tenant, actor, Change(action, device, detail=detail))
