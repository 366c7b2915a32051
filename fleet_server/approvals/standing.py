"""What people may do now, with no token in between, and whether that reaches all that a change reaches."""

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
        caller.may_on(permission, site, tags) for site, tags in _places(session, caller.tenant, radius)
    )


def touches(session: Session, caller: Caller, permission: Permission, radius: Radius) -> bool:
    """Whether ``caller`` has the right on any of what a change reaches."""
    if radius.everywhere:
        return caller.may(permission)
    if not radius.devices:
        return any(caller.may_on(permission, site, ()) for site in radius.sites)
    return any(
        caller.may_on(permission, site, tags) for site, tags in _places(session, caller.tenant, radius)
    )


def _places(session: Session, tenant: str, radius: Radius) -> list[tuple[str | None, set[str]]]:
    """The site and the tags of each device, as they are now."""
    names = [device.id for device in radius.devices]
    found: list[tuple[str | None, set[str]]] = []
    for part in in_parts(names):
        sites = session.exec(
            select(Device.id, Device.site).where(Device.tenant == tenant, col(Device.id).in_(part))
        ).all()
        tags: dict[str, set[str]] = {}
        for row in session.exec(
            select(DeviceTag).where(DeviceTag.tenant == tenant, col(DeviceTag.device).in_(part))
        ):
            tags.setdefault(row.device, set()).add(row.tag)
        found += [(site, tags.get(device, set())) for device, site in sites]
    return found
