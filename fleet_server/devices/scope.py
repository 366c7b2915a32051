"""Which devices a caller sees: their scopes as a condition of a query; the database leaves out the rest.

A device outside is one that is not there, whatever is asked about it.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, and_, false, or_, true
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import EVERYWHERE, Scope
from fleet_server.database.models import Device, DeviceTag
from fleet_server.errors import NotFound

ALL: Final = (EVERYWHERE,)
"""The scopes of whoever sees everything."""


def within(scopes: Collection[Scope]) -> ColumnElement[bool]:
    """Whether a row of :class:`Device` is within one of ``scopes``."""
    return true() if EVERYWHERE in scopes else or_(false(), *map(_holds, scopes))


def among(device: Any, tenant: str, scopes: Collection[Scope]) -> ColumnElement[bool]:
    """Whether the column ``device`` of any table names a device of ``tenant`` within one of ``scopes``."""
    if EVERYWHERE in scopes:
        return true()
    names = select(Device.id).where(Device.tenant == tenant, within(scopes))
    condition: ColumnElement[bool] = device.in_(names)
    return condition


def known_sites(site: Any, tenant: str, scopes: Collection[Scope]) -> ColumnElement[bool]:
    """Whether the column ``site`` of any table names one that ``scopes`` are for, or have devices at."""
    if EVERYWHERE in scopes:
        return true()
    theirs = select(Device.site).where(Device.tenant == tenant, within(scopes))
    named = [scope.site for scope in scopes if not scope.tag]
    condition: ColumnElement[bool] = site.in_(theirs) | site.in_(named)
    return condition


def require_device(engine: Engine, tenant: str, device: str, scopes: Collection[Scope]) -> None:
    """See to it that ``device`` is registered, and within one of ``scopes``.

    Raises:
        NotFound: it is not.
    """
    if not is_within(engine, tenant, device, scopes):
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))


def is_within(engine: Engine, tenant: str, device: str, scopes: Collection[Scope]) -> bool:
    """Whether ``device`` is registered, and within one of ``scopes``."""
    query = select(Device.id).where(Device.tenant == tenant, Device.id == device, within(scopes))
    with Session(engine) as session:
        return session.exec(query).first() is not None


def _holds(scope: Scope) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if scope.site:
        conditions.append(col(Device.site) == scope.site)
    if scope.tag:
        tagged = select(DeviceTag.device).where(
            DeviceTag.tenant == Device.tenant, DeviceTag.device == Device.id, DeviceTag.tag == scope.tag
        )
        conditions.append(tagged.exists())
    return and_(*conditions)
