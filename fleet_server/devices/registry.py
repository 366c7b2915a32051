"""The register of devices: adding one, and everything that is known of one or many.

A device's page is put together from what was registered, the twin, and when it was last heard.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from cryptography import x509
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from fleet_protocol.messages import HealthReport
from fleet_protocol.texts import _
from fleet_server.access import audit
from fleet_server.access.audit import Change
from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Device, Presence, RefusalCount, Site, Twin, TwinHalf
from fleet_server.devices.certificates import certificate_row, knows_key
from fleet_server.devices.health import HealthItem, Signs, health_of, state_of
from fleet_server.errors import Conflict, NotFound

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


class Newcomer(NamedTuple):
    """A device that is to be registered."""

    id: str
    profile: str
    site: str | None


def add_device(
    engine: Engine,
    tenant: str,
    actor: Actor,
    new: Newcomer,
    certificate: x509.Certificate,
    trust_sha256: str,
) -> None:
    """Register a device together with its certificate; a site that is new is made.

    Adding the same device with the same key again only adds the certificate: whoever asked may
    never have seen the answer.

    Raises:
        Conflict: there is a device of this name with another key.
    """
    device = new.id
    try:
        with writing(engine) as session:
            if session.get(Device, (tenant, device)) is None:
                _add_site(session, tenant, new.site)
                session.add(
                    Device(tenant=tenant, id=device, site=new.site, profile=new.profile, created_ms=wall_ms())
                )
                session.flush()
            elif not knows_key(session, tenant, device, certificate):
                raise _taken(device)
            row = certificate_row(tenant, device, certificate, trust_sha256)
            session.add(row)
            detail = {"profile": new.profile, "site": new.site, "serial": row.serial, "key": row.key_sha256}
            audit.append(session, tenant, actor, Change("device.add", device, None, detail, detail))
    except IntegrityError:
        raise _taken(device) from None


def require_device(engine: Engine, tenant: str, device: str) -> None:
    """See to it that ``device`` is registered.

    Raises:
        NotFound: it is not.
    """
    with Session(engine) as session:
        if session.get(Device, (tenant, device)) is None:
            raise _not_found(device)


def list_devices(engine: Engine, tenant: str, after: str, limit: int) -> list[DeviceSummary]:
    """At most ``limit`` devices in the order of their names, from the first one after ``after`` on."""
    query = select(Device).where(Device.tenant == tenant, Device.id > after).order_by(col(Device.id))
    with Session(engine) as session:
        devices = session.exec(query.limit(limit)).all()
        return _summaries(session, tenant, devices)


def get_device(engine: Engine, tenant: str, device: str) -> DevicePage:
    """Everything known of ``device``.

    Raises:
        NotFound: it is not registered.
    """
    with Session(engine) as session:
        found = session.get(Device, (tenant, device))
        if found is None:
            raise _not_found(device)
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
    return [
        DeviceSummary(
            id=device.id,
            site=device.site,
            profile=device.profile,
            state=state_of(signs[device.id], now_ms),
            created_ms=device.created_ms,
            heard_ms=signs[device.id].heard_ms,
            health=health_of(signs[device.id], now_ms),
        )
        for device in devices
    ]


def _signs(session: Session, tenant: str, names: Sequence[str]) -> dict[str, Signs]:
    """What the database knows of each of ``names``, in three questions for all of them."""
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
    return {name: _sign(name, heard.get(name), twins, refusals.get(name)) for name in names}


def _sign(
    name: str, heard_ms: int | None, twins: dict[tuple[str, str], str], refusal: RefusalCount | None
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
    )


def _add_site(session: Session, tenant: str, site: str | None) -> None:
    if site is not None and session.get(Site, (tenant, site)) is None:
        session.add(Site(tenant=tenant, id=site, name=site))
        session.flush()


def _taken(device: str) -> Conflict:
    return Conflict(_("there is a device {device!r} already").format(device=device))


def _not_found(device: str) -> NotFound:
    return NotFound(_("there is no device {device!r}").format(device=device[:80]))
