"""A device's versions as a page: desired against reported, its signed word, and its history."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_server.clock import wall_ms
from fleet_server.database.models import Presence, Twin, TwinHalf, VersionStatement
from fleet_server.devices.health import DeviceState, Signs, state_of
from fleet_server.devices.registry import find_device
from fleet_server.updates.assignments import wishes_of
from fleet_server.updates.attested import latest, report_in, told_in, word_in
from fleet_server.updates.difference import Difference, Wished, differences


@dataclass(frozen=True, slots=True)
class Attested:
    """A device's signed word: which ``way`` it came, when, and since when its nonce was out.

    ``is_settled``: no update was under way. ``repositories`` are the versions of metadata below which the
    device accepts nothing; ``history`` is what it says that happened, oldest first.
    """

    way: str
    attested_ms: int
    issued_ms: int
    serial: str
    agent: str
    wall_ms: int
    is_settled: bool
    happened: int
    repositories: dict[str, dict[str, int]]
    failed: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    history: list[dict[str, Any]]
    problem: str


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Every artifact that a device shall have or has; ``attested`` is None before its first signed word."""

    device: str
    items: list[Difference]
    attested: Attested | None


def versions_of(engine: Engine, tenant: str, device: str) -> VersionPage:
    """The versions of ``device``.

    Raises:
        NotFound: it is not registered.
    """
    with Session(engine) as session:
        find_device(session, tenant, device)
        wishes = [
            Wished(each.kind, each.name, each.version, each.release, each.sha256, each.mode)
            for each in wishes_of(session, tenant, [device])[device]
        ]
        row = latest(session, tenant, [device]).get(device)
        reported = session.get(Twin, (tenant, device, TwinHalf.REPORTED))
        status = session.get(Twin, (tenant, device, TwinHalf.STATUS))
        presence = session.get(Presence, (tenant, device))
    heard_ms = presence.heard_ms if presence else None
    is_online = status is not None and bool(json.loads(status.document).get("online"))
    is_there = state_of(Signs(heard_ms, is_online), wall_ms()) is DeviceState.ONLINE
    told = told_in(reported.document, heard_ms or 0, is_there=is_there) if reported else None
    word = word_in(row) if row else None
    return VersionPage(device, differences(wishes, word, told), _attested(row))


def _attested(row: VersionStatement | None) -> Attested | None:
    if row is None:
        return None
    report = report_in(row)
    return Attested(
        way=row.way,
        attested_ms=row.attested_ms,
        issued_ms=row.issued_ms,
        serial=row.serial,
        agent=report.agent,
        wall_ms=report.wall_ms,
        is_settled=report.is_settled,
        happened=report.happened,
        repositories=report.repositories,
        failed=_plain(report.failed),
        refused=_plain(report.refused),
        history=_plain(report.history),
        problem=report.problem,
    )


def _plain(items: Sequence[msgspec.Struct]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(each) for each in items]
