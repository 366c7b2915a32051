"""Signed words in both databases: what rollouts see of silent devices, and what contradicts the broker."""

import time
from typing import Any

import msgspec
from sqlalchemy import Engine

from fleet_protocol.messages import ClockState, UpdateReport
from fleet_protocol.targets import Kind
from fleet_protocol.versions import InstalledVersion, VersionReport
from fleet_server.database.engine import writing
from fleet_server.database.models import VersionStatement
from fleet_server.devices.registry import get_device
from fleet_server.updates.attested import COURIER, ONLINE
from fleet_server.updates.version_pages import versions_of
from tests.support.rollouts import (
    TENANT,
    add_fleet,
    begin,
    digest,
    give,
    move_on,
    publish,
    states_of,
    tell,
    update,
)


def sign(engine: Engine, device: str, way: str, runs: int, *updates: UpdateReport, **more: Any) -> None:
    """What is written when a device's signed word arrives now."""
    now_ms = time.time_ns() // 1_000_000
    installed = InstalledVersion(
        kind=Kind.MODEL, name="leak", version=f"{runs}.0", release=runs, sha256=digest("leak", runs)
    )
    report = VersionReport(
        device=device, nonce="n" * 16, agent="argan-0.1.0", profile="simulated", boot_id="0" * 16,
        wall_ms=1, clock=ClockState.TRUSTED, journal="0" * 16, happened=1, installed=(installed,),
        updates=updates,
    )  # fmt: skip
    document = msgspec.json.encode(msgspec.structs.replace(report, **more)).decode()
    with writing(engine) as session:
        session.add(
            VersionStatement(
                tenant=TENANT, device=device, way=way, serial="1", state_sha256="0" * 64, first_ms=now_ms,
                attested_ms=now_ms, issued_ms=1, document=document, jws="",
            )
        )  # fmt: skip


def test_a_rollout_goes_on_by_what_a_courier_brought(engine: Engine) -> None:
    names = add_fleet(engine, 2)
    publish(engine, 1, 2)
    give(engine, names, 1)
    identity = begin(engine, "100%", failures=2)
    move_on(engine)
    # The first never spoke; of the second the broker has heard since.
    sign(engine, names[0], COURIER, 2, update(2, "committed", installed=2))
    sign(engine, names[1], COURIER, 2, update(2, "committed", installed=2))
    tell(engine, names[1], update(1, "committed"))
    move_on(engine)
    assert states_of(engine, identity) == {names[0]: "done", names[1]: "assigned"}
    found = versions_of(engine, TENANT, names[0]).items[0]
    assert (found.why, found.reported_by) == ("same", "courier")


def test_a_word_over_https_counts_in_a_rollout_only_where_the_broker_is_silent(engine: Engine) -> None:
    names = add_fleet(engine, 2)
    publish(engine, 1, 2)
    give(engine, names, 1)
    tell(engine, names[0], update(1, "committed"))
    identity = begin(engine, "100%", failures=2)
    move_on(engine)
    for name in names:
        sign(engine, name, ONLINE, 1, update(2, "failed"))
    move_on(engine)
    assert states_of(engine, identity) == {names[0]: "assigned", names[1]: "failed"}


def test_what_the_broker_says_against_the_devices_signed_word_is_raised(engine: Engine) -> None:
    (name,) = add_fleet(engine, 1)
    publish(engine, 1, 2)
    sign(engine, name, ONLINE, 2, update(2, "committed", installed=2))

    def codes() -> list[str]:
        return [each.code for each in get_device(engine, TENANT, name).device.health]

    tell(engine, name, update(2, "committed", installed=2, since=0))
    assert "versions.contradicted" not in codes()
    tell(engine, name, update(1, "committed", installed=1, since=0))
    assert "versions.contradicted" in codes()
