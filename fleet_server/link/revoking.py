"""Revoking the certificates of many devices at once, as a proposal asks for it.

It is written down here; the services that face devices then see to it that it is obeyed.
"""

from typing import Final

import msgspec
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.approvals import NO_SITE
from fleet_server.access.audit import Change
from fleet_server.access.plans import Action, Arguments, Difference, Plan, Radius, Touched, read
from fleet_server.access.roles import Permission
from fleet_server.clock import wall_ms
from fleet_server.database.models import Certificate, Device
from fleet_server.database.parts import in_parts
from fleet_server.errors import BadChange

REVOKE: Final = "device.revoke"

AT_ONCE: Final = 3
"""So many devices an operator cuts off alone: more is no thief, it is an outage."""

_REASONS: Final = ("unspecified", "keyCompromise", "cessationOfOperation", "superseded", "privilegeWithdrawn")


class RevokeArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices, and a reason of RFC 5280."""

    devices: tuple[str, ...]
    reason: str = "unspecified"


def plan(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
    """Every certificate of the devices that still holds.

    Raises:
        BadChange: a device is not there, or there is nothing to revoke.
    """
    asked = read(arguments, RevokeArguments)
    if asked.reason not in _REASONS:
        raise BadChange(_("the reason is one of {known}").format(known=", ".join(_REASONS)))
    devices = _devices(session, tenant, asked.devices)
    certificates = _living(session, tenant, [device.id for device in devices])
    if not certificates:
        raise BadChange(_("none of these devices has a certificate that still holds"))
    diff = (
        Difference("certificates", sorted(row.serial for row in certificates), []),
        Difference("revoked_reason", None, asked.reason),
    )

    def carry() -> list[Change]:
        now_ms = wall_ms()
        for row in certificates:
            row.revoked_ms, row.revoked_reason = now_ms, asked.reason
            session.add(row)
        session.flush()
        return [Change(REVOKE, device.id, None, asked.reason, {"reason": asked.reason}) for device in devices]

    touched = tuple(Touched(device.id, device.site or NO_SITE) for device in devices)
    return Plan(diff, Radius.of(touched), carry)


ACTION: Final = Action(REVOKE, Permission.DEVICE_REVOKE, plan)


def _devices(session: Session, tenant: str, names: tuple[str, ...]) -> list[Device]:
    found: list[Device] = []
    for part in in_parts(sorted(set(names))):
        found += session.exec(
            select(Device).where(Device.tenant == tenant, col(Device.id).in_(part)).order_by(col(Device.id))
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
            .where(col(Certificate.revoked_ms).is_(None))
            .order_by(col(Certificate.serial))
            .with_for_update()
        ).all()
    return found
