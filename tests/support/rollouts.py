"""A fleet in a database for tests of rollouts: devices, releases, and what devices report of them."""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.messages import (
    ClockState,
    Format,
    HealthReport,
    Reported,
    SpoolReport,
    UpdateReport,
    encode,
)
from fleet_protocol.targets import Description, Kind
from fleet_server.access.roles import Actor
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Assignment, Device, Presence, Site, Tenant, Twin, TwinHalf
from fleet_server.devices.groups import set_group
from fleet_server.updates import rollouts
from fleet_server.updates.assignments import assign
from fleet_server.updates.rollout_pages import RolloutPage, get_rollout
from fleet_server.updates.rollout_rules import Rules
from fleet_server.updates.rollouts import Action, Order, advance, foresee, lock, pending, resume, start
from tests.support.actors import SOMEBODY

TENANT = "default"
MODEL = (Kind.MODEL, "leak")


def digest(name: str, release: int) -> str:
    return hashlib.sha256(f"{name} {release}".encode()).hexdigest()


def add_fleet(engine: Engine, count: int, *, site: str | None = None, prefix: str = "gw") -> list[str]:
    """Devices gw-00, gw-01, …"""
    names = [f"{prefix}-{number:02}" for number in range(count)]
    with writing(engine) as session:
        session.merge(Tenant(id=TENANT, name=TENANT, created_ms=1))
        session.flush()
        if site:
            session.merge(Site(tenant=TENANT, id=site, name=site))
            session.flush()
        session.add_all(
            Device(tenant=TENANT, id=name, site=site, profile="simulated", created_ms=1) for name in names
        )
    return names


def publish(engine: Engine, *releases: int, name: str = "leak", kind: Kind = Kind.MODEL) -> None:
    """Releases of an artifact, as if they had been published."""
    with writing(engine) as session:
        session.merge(Tenant(id=TENANT, name=TENANT, created_ms=1))
        session.flush()
        for release in releases:
            session.add(
                Artifact(
                    tenant=TENANT, sha256=digest(name, release), kind=kind, name=name,
                    version=f"{release}.0", release=release, size=1000,
                    manifest=described(kind, name, release), created_ms=1,
                )
            )  # fmt: skip


def described(kind: Kind, name: str, release: int) -> str:
    """What the signed metadata says of it."""
    description = Description(kind=kind, name=name, version=f"{release}.0", release=release)
    return msgspec.json.encode(description).decode()


def give(engine: Engine, devices: list[str], release: int | None, name: str = "leak") -> None:
    """Assign by hand."""
    wish = digest(name, release) if release else None
    with writing(engine) as session:
        assign(session, TENANT, (Kind.MODEL, name), dict.fromkeys(devices, wish), 1)


def assigned(engine: Engine, name: str = "leak") -> dict[str, str]:
    """What each device shall have."""
    with Session(engine) as session:
        rows = session.exec(select(Assignment).where(Assignment.name == name))
        return {row.device: row.artifact for row in rows}


def update(
    release: int, state: str, *, installed: int = 1, refusal: str = "", since: int = 1, name: str = "leak"
) -> UpdateReport:
    return UpdateReport(
        kind="model", name=name, release=release, version=f"{release}.0", state=state,
        since_wall_ms=since, installed=installed, refusal=refusal,
    )  # fmt: skip


def reported(*updates: UpdateReport, health: Sequence[HealthReport] = ()) -> Reported:
    return Reported(
        agent="argan-0.1.0", profile="simulated", boot_id="0" * 16, epoch="e" * 16, wall_ms=1,
        clock=ClockState.TRUSTED, sensors=[], models=[], health=list(health),
        spool=SpoolReport(batches=0, bytes=0, dropped_records=0), updates=list(updates),
    )  # fmt: skip


def tell(
    engine: Engine,
    device: str,
    *updates: UpdateReport,
    online: bool = True,
    health: Sequence[HealthReport] = (),
) -> None:
    """What ingest writes when a device reports."""
    now_ms = time.time_ns() // 1_000_000
    document = encode(reported(*updates, health=health), Format.JSON).decode()
    with writing(engine) as session:
        whose = {"tenant": TENANT, "device": device}
        session.merge(Presence(**whose, heard_ms=now_ms))
        for half, text in ((TwinHalf.REPORTED, document), (TwinHalf.STATUS, json.dumps({"online": online}))):
            session.merge(Twin(**whose, half=half.value, changed_ms=now_ms, document=text))


def begin(
    engine: Engine, *waves: str, failures: int = 0, soak_s: int = 0, release: int = 2, group: str = "all",
    where: str = "", name: str = "leak",
) -> str:  # fmt: skip
    """A rollout of a group that is saved for it."""
    set_group(engine, TENANT, SOMEBODY, group, where)
    rules = Rules(waves=waves or ("100%",), max_failures=failures, soak_s=soak_s)
    return launch(engine, Order(group, Kind.MODEL, name, release, rules, "a better model"))


def launch(engine: Engine, order: Order) -> str:
    """A rollout that was agreed to; its id."""
    identity = secrets.token_hex(4)
    with writing(engine) as session:
        start(session, TENANT, identity, order, foresee(session, TENANT, identity, order))
    return identity


def act(engine: Engine, identity: str, action: Action) -> None:
    """Pause, resume or abort it; what has to be agreed to was."""
    if action is Action.RESUME:
        with writing(engine) as session:
            resume(session, TENANT, identity)
    else:
        rollouts.act(engine, TENANT, identity, action, Actor.shell("test"))


def move_on(engine: Engine, now_ms: int | None = None) -> int:
    """One round of the loop without its process; how many rollouts moved."""
    with Session(engine) as session:
        found = pending(session)
    moved = 0
    for tenant, identity in found:
        with writing(engine) as session:
            moved += advance(session, lock(session, tenant, identity), now_ms or time.time_ns() // 1_000_000)
    return moved


def page(engine: Engine, identity: str) -> RolloutPage:
    return get_rollout(engine, TENANT, identity)


def waves_of(engine: Engine, identity: str) -> list[list[str]]:
    return [[device.id for device in wave.devices] for wave in page(engine, identity).waves]


def states_of(engine: Engine, identity: str) -> dict[str, str]:
    return {device.id: device.state for wave in page(engine, identity).waves for device in wave.devices}
