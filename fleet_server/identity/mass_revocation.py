"""Revoking many devices: as a proposal asks for it, and how many one person may put out alone.

It is written down here; the guard sees to it that it is obeyed.
"""

from typing import Final

import msgspec
from sqlalchemy import or_
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Caller, Permission
from fleet_server.approvals.decision import NO_SITE
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, Touched, read
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.models import AuditRecord, Certificate, Device, Person
from fleet_server.database.parts import in_parts
from fleet_server.errors import BadChange, ManyRevocations
from fleet_server.identity.revoking import ON_HOLD, Cause, close_openings, take_back

REVOKE: Final = "device.revoke"

ALONE: Final = 3
"""So many devices one person puts out within :data:`WHILE_MS`: more is no thief, it is an outage."""

WHILE_MS: Final = 3_600_000

_BY: Final = "approvals"
"""Who ends what is open for a device, where a proposal does it; its own record names the people."""

_PUT_OUT: Final = (REVOKE, "device.hold", "device.replace")
"""What puts a device, or the board that fills it, out; as the audit has it."""


def require_few(session: Session, caller: Caller, device: str, now_ms: int) -> None:
    """See to it that the caller does not put out one device after another without anybody else.

    Raises:
        ManyRevocations: they have put out as many as they may for now.
    """
    # One at a time of the same person, or as many would be counted as none.
    session.get(Person, (caller.tenant, caller.person), with_for_update={"key_share": True})
    others = session.exec(
        select(AuditRecord.subject)
        .where(AuditRecord.tenant == caller.tenant, AuditRecord.person == caller.person)
        .where(AuditRecord.time_ms > now_ms - WHILE_MS, col(AuditRecord.action).in_(_PUT_OUT))
        .where(AuditRecord.subject != device)
        .distinct()
    ).all()
    if len(others) >= ALONE:
        raise ManyRevocations(
            _("{person} has put out {count} devices within the hour").format(
                person=caller.person, count=len(others)
            )
        )


class RevokeArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices, and why, in the words of RFC 5280."""

    devices: tuple[str, ...]
    reason: Cause = Cause.WITHDRAWN


def plan(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
    """The devices that shall prove nothing any more; which certificates those are is seen when it is done.

    A device that renews while the proposal waits is revoked all the same.

    Raises:
        BadChange: a device is not there, there is nothing to revoke, or the reason is none.
    """
    asked = read(arguments, RevokeArguments)
    devices = _devices(session, tenant, asked.devices)
    names = [device.id for device in devices]
    if not _counts(session, tenant, names):
        raise BadChange(_("none of these devices has a certificate that still holds"))
    diff = (Difference("devices", names, []), Difference("revoked_reason", None, asked.reason))

    def carry() -> list[Change]:
        now_ms, changes = wall_ms(), []
        for name in names:
            told = close_openings(session, tenant, name, _BY, _("revoked with others"), now_ms)
            serials = take_back(session, tenant, name, asked.reason, now_ms)
            if serials or any(told.values()):
                detail = {"cause": asked.reason, "serials": serials, **told}
                changes.append(Change(REVOKE, name, serials, [], detail))
        return changes

    touched = tuple(Touched(device.id, device.site or NO_SITE) for device in devices)
    return Plan(diff, Radius.of(touched), carry)


ACTION: Final = Action(REVOKE, Permission.DEVICE_REVOKE, plan)


def _devices(session: Session, tenant: str, names: tuple[str, ...]) -> list[Device]:
    """Their rows, locked, so that nothing is issued to them meanwhile that would be left out."""
    found: list[Device] = []
    for part in in_parts(sorted(set(names))):
        found += session.exec(
            select(Device)
            .where(Device.tenant == tenant, col(Device.id).in_(part))
            .order_by(col(Device.id))
            .with_for_update(key_share=True)
        ).all()
    if missing := sorted(set(names) - {device.id for device in found}):
        raise BadChange(_("there is no device {device!r}").format(device=missing[0][:80]))
    return found


def _counts(session: Session, tenant: str, devices: list[str]) -> bool:
    """Whether any of ``devices`` has a certificate that counts, or would again after a hold."""
    counts = or_(col(Certificate.revoked_ms).is_(None), col(Certificate.revoked_reason) == ON_HOLD)
    return any(
        session.exec(
            select(Certificate.serial)
            .where(Certificate.tenant == tenant, col(Certificate.device).in_(part), counts)
            .limit(1)
        ).first()
        for part in in_parts(devices)
    )
