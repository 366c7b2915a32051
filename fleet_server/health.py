"""How the server itself is, in the words of the health catalog."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.messages import HealthReport
from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.database.models import BreakGlass, RefusalCount, Service
from fleet_server.database.service import raised
from fleet_server.devices.health import REFUSED_FOR_MS, HealthItem, describe

_STRANGERS: Final = ("", "")


def server_health(engine: Engine) -> list[HealthItem]:
    """Every code that is raised for the server, the most severe first."""
    now_ms = wall_ms()
    reports = [
        HealthReport(code=row.code, since_wall_ms=row.since_ms, detail=row.detail)
        for row in raised(engine, now_ms)
    ]
    with Session(engine) as session:
        strangers = session.get(RefusalCount, _STRANGERS)
        broken = session.exec(
            select(BreakGlass)
            .where(col(BreakGlass.acknowledged_ms).is_(None))
            .order_by(col(BreakGlass.broken_ms))
        ).all()
    if strangers is not None and now_ms - strangers.last_ms <= REFUSED_FOR_MS:
        detail = _("{count} that belong to no registered device; the last: {reason}").format(
            count=strangers.count, reason=strangers.last_reason
        )
        reports.append(
            HealthReport(code="message.refused", since_wall_ms=strangers.last_ms, detail=detail[:200])
        )
    if broken:
        reports.append(_of_glass(broken))
    return describe(reports)


def _of_glass(broken: Sequence[BreakGlass]) -> HealthReport:
    """One report for all of them, since the first."""
    told = _("proposal {id}, by {person}: {reason}")
    detail = "; ".join(told.format(id=one.proposal, person=one.person, reason=one.reason) for one in broken)
    return HealthReport(code="access.break_glass", since_wall_ms=broken[0].broken_ms, detail=detail[:200])


def has_started(engine: Engine, name: str, since_ms: int) -> bool:
    """Whether the service ``name`` has said since then that it lives."""
    with Session(engine) as session:
        row = session.get(Service, name)
        return row is not None and row.beat_ms >= since_ms
