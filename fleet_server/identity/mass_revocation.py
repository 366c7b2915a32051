"""Revoking many devices: as a proposal asks for it, and how many one person may put out alone.

It is written down here; the guard sees to it that it is obeyed.
"""

from typing import Final

import msgspec
from sqlmodel import Session, col, delete, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Caller, Permission
from fleet_server.approvals.decision import NO_SITE
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, Touched, read
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.models import AuditRecord, Certificate, Device, Hold, Person
from fleet_server.database.parts import in_parts
from fleet_server.errors import BadChange, ManyRevocations
from fleet_server.identity.revoking import ON_HOLD, Cause, take_back

REVOKE: Final = "device.revoke"

ALONE: Final = 3
"""So many devices one person puts out within :data:`WHILE_MS`: more is no thief, it is an outage."""

WHILE_MS: Final = 3_600_000

_PUT_OUT: Final = (REVOKE, "device.hold")
"""What puts a device out, as the audit has it."""


def require_few(session: Session, caller: Caller, device: str, now_ms: int) -> None:
    """See to it that the caller does not put out one device after another without anybody else.

    Raises:
        ManyRevocations: they have put out as many as they may for now.
    """
    # Held, so that of many requests at once each sees those before it.
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
    """Every certificate of the devices that still counts, or may count again because it is only on hold.

    Raises:
        BadChange: a device is not there, there is nothing to revoke, or the reason is none.
    """
    asked = read(arguments, RevokeArguments)
    devices = _devices(session, tenant, asked.devices)
    names = [device.id for device in devices]
    certificates = _living(session, tenant, names)
    if not certificates:
        raise BadChange(_("none of these devices has a certificate that still holds"))
    diff = (
        Difference("certificates", sorted(row.serial for row in certificates), []),
        Difference("revoked_reason", None, asked.reason),
    )

    def carry() -> list[Change]:
        take_back(session, certificates, asked.reason, wall_ms())
        for part in in_parts(names):
            session.exec(delete(Hold).where(col(Hold.tenant) == tenant, col(Hold.device).in_(part)))
        return [Change(REVOKE, device.id, None, asked.reason, {"reason": asked.reason}) for device in devices]

    touched = tuple(Touched(device.id, device.site or NO_SITE) for device in devices)
    return Plan(diff, Radius.of(touched), carry)


ACTION: Final = Action(REVOKE, Permission.DEVICE_REVOKE, plan)


def _devices(session: Session, tenant: str, names: tuple[str, ...]) -> list[Device]:
    found: list[Device] = []
    for part in in_parts(sorted(set(names))):
        found += session.exec(
            select(Device)
            .where(Device.tenant == tenant, col(Device.id).in_(part))
            .order_by(col(Device.id))
            # As a renewal holds its device: no certificate comes in between that would be left out.
            .with_for_update(key_share=True)
        ).all()
    if missing := sorted(set(names) - {device.id for device in found}):
        raise BadChange(_("there is no device {device!r}").format(device=missing[0][:80]))
    return found


def _living(session: Session, tenant: str, devices: list[str]) -> list[Certificate]:
    found: list[Certificate] = []
    for part in in_parts(devices):
        found += session.exec(
            select(Certificate)
            .where(Certificate.tenant == tenant, col(Certificate.device).in_(part))
            .where(col(Certificate.revoked_ms).is_(None) | (col(Certificate.revoked_reason) == ON_HOLD))
            .order_by(col(Certificate.serial))
            .with_for_update()
        ).all()
    return found
