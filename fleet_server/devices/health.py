"""How a device is: what it reports, and what only the centre can see. Pure.

The words come from the health catalog, so that they are the same wherever they are read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_protocol.health import CATALOG
from fleet_protocol.messages import HealthReport, Severity
from fleet_protocol.texts import _

SILENT_AFTER_MS: Final = 150_000
"""Two and a half of the agent's reports, which come every 60 s: one may be lost, two are not by chance."""

REFUSED_FOR_MS: Final = 600_000
"""How long a refused message keeps its code raised, so that one stray message does not stay for ever."""


class DeviceState(StrEnum):
    """Whether a device is there: never heard, connected, told as gone, or not heard for too long."""

    NEW = "new"
    ONLINE = "online"
    OFFLINE = "offline"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Signs:
    """What the centre knows of a device; times in ms since 1970 by the server's clock.

    ``held`` is why it is kept out, with the code and the time; None for one that is not. ``contradicted`` is
    where the broker's word on its versions and its own signed one cannot both be true.
    """

    heard_ms: int | None
    is_online: bool
    reports: tuple[HealthReport, ...] = ()
    refused: int = 0
    refused_ms: int | None = None
    refused_reason: str = ""
    held: HealthReport | None = None
    contradicted: HealthReport | None = None


@dataclass(frozen=True, slots=True)
class HealthItem:
    """A raised code with its words. ``explained_by`` are the raised codes that are its likely cause."""

    code: str
    severity: str
    title: str
    meaning: str
    next_step: str
    since_ms: int
    detail: str
    explained_by: tuple[str, ...]


def state_of(signs: Signs, now_ms: int) -> DeviceState:
    """Whether the device is there."""
    if signs.heard_ms is None:
        return DeviceState.NEW
    if now_ms - signs.heard_ms > SILENT_AFTER_MS:
        return DeviceState.SILENT
    return DeviceState.ONLINE if signs.is_online else DeviceState.OFFLINE


def health_of(signs: Signs, now_ms: int) -> list[HealthItem]:
    """Every code that is raised for the device, the most severe first."""
    reports = list(signs.reports)
    if state_of(signs, now_ms) is DeviceState.SILENT:
        reports.append(HealthReport(code="device.silent", since_wall_ms=signs.heard_ms or 0))
    if signs.refused_ms is not None and now_ms - signs.refused_ms <= REFUSED_FOR_MS:
        detail = _("{count} so far; the last: {reason}").format(
            count=signs.refused, reason=signs.refused_reason
        )
        reports.append(
            HealthReport(code="message.refused", since_wall_ms=signs.refused_ms, detail=detail[:200])
        )
    reports += [each for each in (signs.held, signs.contradicted) if each is not None]
    return describe(reports)


def describe(reports: Iterable[HealthReport]) -> list[HealthItem]:
    """``reports`` with their words, the most severe first."""
    raised = {report.code: report for report in reports}
    items = [_describe(report, raised.keys()) for report in raised.values()]
    return sorted(items, key=lambda item: (-Severity[item.severity.upper()], item.code))


def _describe(report: HealthReport, raised: Iterable[str]) -> HealthItem:
    known = CATALOG.get(report.code)
    if known is None:
        return HealthItem(
            code=report.code,
            severity=Severity.WARNING.name.lower(),
            title=report.code,
            meaning=_("This code is not known here."),
            next_step=_("Update the server: the device's agent is newer."),
            since_ms=report.since_wall_ms,
            detail=report.detail,
            explained_by=(),
        )
    return HealthItem(
        code=known.code,
        severity=known.severity.name.lower(),
        title=known.title,
        meaning=known.meaning,
        next_step=known.next_step,
        since_ms=report.since_wall_ms,
        detail=report.detail,
        explained_by=tuple(sorted(set(known.depends_on).intersection(raised))),
    )
