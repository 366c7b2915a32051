"""What people may do now, with no token in between, and how much of what a change reaches that reaches."""

from typing import Final, NamedTuple

from sqlmodel import Session, col, select

from fleet_server.access.roles import Caller, Grant, Permission, RoleName, Scope
from fleet_server.approvals.decision import beholden
from fleet_server.approvals.plans import Radius
from fleet_server.database.models import AuditRecord, Device, DeviceTag, Person, Role
from fleet_server.database.parts import in_parts

PUPPET_MS: Final = 30 * 86_400_000
"""For so long whoever gave somebody their account or a way in is not approved by them."""

_GIVEN: Final = ("person.add", "person.grant", "person.enable", "person.password", "person.link")
"""What gives somebody rights, or another the means to speak for them; as the audit has it."""


class Span(NamedTuple):
    """When something was asked for and when it was over, in ms since 1970; None where it still waits."""

    began_ms: int
    ended_ms: int | None


def puppets_of(session: Session, tenant: str, person: str, span: Span) -> frozenset[str]:
    """Whom ``person`` gave their account, rights or login, from 30 days before ``span`` until its end.

    Also by way of others whom they gave theirs. Who has a shell on the server is somebody else than any
    account.
    """
    query = (
        select(AuditRecord.person, AuditRecord.subject)
        .where(AuditRecord.tenant == tenant, col(AuditRecord.action).in_(_GIVEN))
        .where(AuditRecord.time_ms > span.began_ms - PUPPET_MS)
        .where(col(AuditRecord.role).in_([role.value for role in RoleName]))
    )
    if span.ended_ms is not None:
        query = query.where(AuditRecord.time_ms <= span.ended_ms)
    return beholden(person, session.exec(query.distinct()).all())


def standing(session: Session, tenant: str, person: str) -> Caller:
    """``person`` with all rights that they have now: none, where the account is disabled."""
    found = session.get(Person, (tenant, person))
    if found is None or found.disabled_ms is not None:
        return Caller(tenant, person, (), "", "")
    roles = session.exec(select(Role).where(Role.tenant == tenant, Role.person == person)).all()
    grants = tuple(Grant.of(RoleName(role.role), Scope(role.site, role.tag)) for role in roles)
    return Caller(tenant, person, grants, "", "")


def reaches(session: Session, caller: Caller, permission: Permission, radius: Radius) -> bool:
    """Whether ``caller`` has the right on all that a change reaches; no site is everything."""
    if radius.everywhere or not radius.sites or caller.may_everywhere(permission):
        return caller.may_everywhere(permission)
    if not radius.devices:
        return all(caller.may_on(permission, site, ()) for site in radius.sites)
    return all(
        caller.may_on(permission, site, tags)
        for site, tags in _places(session, caller.tenant, radius).values()
    )


def touches(session: Session, caller: Caller, permission: Permission, radius: Radius) -> bool:
    """Whether ``caller`` has the right on any of what a change reaches."""
    if radius.everywhere:
        return caller.may(permission)
    if not radius.devices:
        return any(caller.may_on(permission, site, ()) for site in radius.sites)
    return any(
        caller.may_on(permission, site, tags)
        for site, tags in _places(session, caller.tenant, radius).values()
    )


def seen_of(session: Session, caller: Caller, permission: Permission, radius: Radius) -> Radius | None:
    """What of a change is on devices that ``caller`` has the right on; None where nothing is.

    What reaches all of a tenant, or of a site, names no device, and concerns whoever has the right there.
    """
    if caller.may_everywhere(permission):
        return radius
    if radius.everywhere or not radius.devices:
        return radius if touches(session, caller, permission, radius) else None
    places = _places(session, caller.tenant, radius)
    seen = [
        device
        for device in radius.devices
        if device.id in places and caller.may_on(permission, *places[device.id])
    ]
    return Radius.of(tuple(seen)) if seen else None


def _places(session: Session, tenant: str, radius: Radius) -> dict[str, tuple[str | None, set[str]]]:
    """The site and the tags of each device, as they are now."""
    names = [device.id for device in radius.devices]
    found: dict[str, tuple[str | None, set[str]]] = {}
    for part in in_parts(names):
        sites = session.exec(
            select(Device.id, Device.site).where(Device.tenant == tenant, col(Device.id).in_(part))
        ).all()
        tags: dict[str, set[str]] = {}
        for row in session.exec(
            select(DeviceTag).where(DeviceTag.tenant == tenant, col(DeviceTag.device).in_(part))
        ):
            tags.setdefault(row.device, set()).add(row.tag)
        found |= {device: (site, tags.get(device, set())) for device, site in sites}
    return found
