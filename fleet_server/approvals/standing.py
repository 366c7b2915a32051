"""What people may do now, with no token in between, and how much of what a change reaches that reaches."""

from sqlmodel import Session, col, select

from fleet_server.access.roles import Caller, Grant, Permission, RoleName, Scope
from fleet_server.approvals.plans import Radius
from fleet_server.database.models import Device, DeviceTag, Person, Role
from fleet_server.database.parts import in_parts


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
