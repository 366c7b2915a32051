"""Which tags devices have: words that people put on them, to find them by and to hand out rights by."""

from collections.abc import Iterable

from sqlmodel import Session, col, select

from fleet_server.database.models import DeviceTag


def tags_of(session: Session, tenant: str, devices: Iterable[str]) -> dict[str, list[str]]:
    """The tags of each of ``devices`` that has any, in alphabetical order."""
    query = select(DeviceTag).where(DeviceTag.tenant == tenant, col(DeviceTag.device).in_(list(devices)))
    return _by_device(session.exec(query.order_by(col(DeviceTag.tag))))


def all_tags(session: Session, tenant: str) -> dict[str, list[str]]:
    """The tags of every device of ``tenant`` that has any, in alphabetical order."""
    query = select(DeviceTag).where(DeviceTag.tenant == tenant).order_by(col(DeviceTag.tag))
    return _by_device(session.exec(query))


def _by_device(rows: Iterable[DeviceTag]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.device, []).append(row.tag)
    return found
