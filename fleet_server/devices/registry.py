"""The register of devices: adding one, and everything that is known of one or many.

A device's page is put together from what was registered, the twin, and when it was last heard.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.messages import HealthReport
from fleet_protocol.texts import _
from fleet_server.access.roles import Scope
from fleet_server.clock import wall_ms
from fleet_server.database.models import (
    Certificate,
    Device,
    Hold,
    Presence,
    RefusalCount,
    Site,
    Twin,
    TwinHalf,
)
from fleet_server.devices.health import HealthItem, Signs, health_of, state_of
from fleet_server.devices.scope import ALL, within
from fleet_server.devices.tags import tags_of
from fleet_server.errors import Conflict, NotFound
from fleet_server.updates.contradicted import contradicted

_HALVES: Final = (TwinHalf.STATUS, TwinHalf.REPORTED)


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """A device in a list; ``heard_ms`` is None for one that never spoke."""

    id: str
    site: str | None
    profile: str
    state: str
    created_ms: int
    heard_ms: int | None
    health: list[HealthItem]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Everything known of one device; ``reported`` is its own document, as of ``reported_ms``.

    ``desired`` is what it shall have: ``assignments``, each with kind, name, version, release and sha256.
    """

    device: DeviceSummary
    reported: dict[str, Any] | None
    reported_ms: int | None
    desired: dict[str, Any] | None
    desired_ms: int | None
    certificate_ends_ms: int | None


def add_device(session: Session, tenant: str, device: str, profile: str, site: str | None) -> Device:
    """Register ``device``, of which there is none in ``tenant``; a site that is new is made.

    Raises:
        Conflict: another tenant has a device of this name.
    """
    if session.exec(select(Device.id).where(Device.id == device)).first() is not None:
        raise taken(device)
    _add_site(session, tenant, site)
    row = Device(tenant=tenant, id=device, site=site, profile=profile, created_ms=wall_ms())
    session.add(row)
    session.flush()
    return row


def find_device(session: Session, tenant: str, device: str) -> Device:
    """The row of ``device``.

    Raises:
        NotFound: it is not registered.
    """
    found = session.get(Device, (tenant, device))
    if found is None:
        raise _not_found(device)
    return found


def list_devices(
    engine: Engine, tenant: str, after: str, limit: int, scopes: Collection[Scope] = ALL
) -> list[DeviceSummary]:
    """At most ``limit`` devices within ``scopes`` in the order of their names, from ``after`` on."""
    query = select(Device).where(Device.tenant == tenant, Device.id > after, within(scopes))
    with Session(engine) as session:
        devices = session.exec(query.order_by(col(Device.id)).limit(limit)).all()
        return _summaries(session, tenant, devices)


def get_device(engine: Engine, tenant: str, device: str) -> DevicePage:
    """Everything known of ``device``.

    Raises:
        NotFound: it is not registered.
    """
    with Session(engine) as session:
        found = find_device(session, tenant, device)
        (summary,) = _summaries(session, tenant, [found])
        reported = session.get(Twin, (tenant, device, TwinHalf.REPORTED))
        desired = session.get(Twin, (tenant, device, TwinHalf.DESIRED))
        ends = session.exec(
            select(Certificate.not_after_ms)
            .where(Certificate.tenant == tenant, Certificate.device == device)
            .where(col(Certificate.revoked_ms).is_(None))
            .order_by(col(Certificate.not_after_ms).desc())
        ).first()
    return DevicePage(
        device=summary,
        reported=json.loads(reported.document) if reported else None,
        reported_ms=reported.changed_ms if reported else None,
        desired=json.loads(desired.document) if desired else None,
        desired_ms=desired.changed_ms if desired else None,
        certificate_ends_ms=ends,
    )


def _summaries(session: Session, tenant: str, devices: Sequence[Device]) -> list[DeviceSummary]:
    names = [device.id for device in devices]
    now_ms = wall_ms()
    signs = _signs(session, tenant, names)
    tags = tags_of(session, tenant, names)
    return [
        DeviceSummary(
            id=device.id,
            site=device.site,
            profile=device.profile,
            state=state_of(signs[device.id], now_ms),
            created_ms=device.created_ms,
            heard_ms=signs[device.id].heard_ms,
            health=health_of(signs[device.id], now_ms),
            tags=tags.get(device.id, []),
        )
        for device in devices
    ]


def _signs(session: Session, tenant: str, names: Sequence[str]) -> dict[str, Signs]:
    """What the database knows of each of ``names``, in a few questions for all of them."""
    heard = {
        row.device: row.heard_ms
        for row in session.exec(
            select(Presence).where(Presence.tenant == tenant, col(Presence.device).in_(names))
        )
    }
    twins = {
        (row.device, row.half): row.document
        for row in session.exec(
            select(Twin).where(
                Twin.tenant == tenant, col(Twin.device).in_(names), col(Twin.half).in_(_HALVES)
            )
        )
    }
    refusals = {
        row.device: row
        for row in session.exec(
            select(RefusalCount).where(RefusalCount.tenant == tenant, col(RefusalCount.device).in_(names))
        )
    }
    holds = {
        row.device: HealthReport(code=row.code, since_wall_ms=row.since_ms, detail=row.reason)
        for row in session.exec(select(Hold).where(Hold.tenant == tenant, col(Hold.device).in_(names)))
    }
    lies = contradicted(
        session, tenant, names, {name: twins.get((name, TwinHalf.REPORTED)) for name in names}
    )
    return {
        name: _sign(name, heard.get(name), twins, refusals.get(name), (holds.get(name), lies.get(name)))
        for name in names
    }


def _sign(
    name: str,
    heard_ms: int | None,
    twins: dict[tuple[str, str], str],
    refusal: RefusalCount | None,
    found: tuple[HealthReport | None, HealthReport | None],
) -> Signs:
    status = json.loads(twins.get((name, TwinHalf.STATUS), "{}"))
    reported = json.loads(twins.get((name, TwinHalf.REPORTED), "{}"))
    return Signs(
        heard_ms=heard_ms,
        is_online=bool(status.get("online")),
        reports=tuple(msgspec.convert(reported.get("health", []), list[HealthReport])),
        refused=refusal.count if refusal else 0,
        refused_ms=refusal.last_ms if refusal else None,
        refused_reason=refusal.last_reason if refusal else "",
        held=found[0],
        contradicted=found[1],
    )


def _add_site(session: Session, tenant: str, site: str | None) -> None:
    if site is not None and session.get(Site, (tenant, site)) is None:
        session.add(Site(tenant=tenant, id=site, name=site))
        session.flush()


def taken(device: str) -> Conflict:
    """That the name of ``device`` is given already."""
    return Conflict(_("there is a device {device!r} already").format(device=device))


def _not_found(device: str) -> NotFound:
    return NotFound(_("there is no device {device!r}").format(device=device[:80]))
