"""How the server itself is, in the words of the health catalog."""

from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.messages import HealthReport
from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.database.models import RefusalCount, Service
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
    if strangers is not None and now_ms - strangers.last_ms <= REFUSED_FOR_MS:
        detail = _("{count} that belong to no registered device; the last: {reason}").format(
            count=strangers.count, reason=strangers.last_reason
        )
        reports.append(
            HealthReport(code="message.refused", since_wall_ms=strangers.last_ms, detail=detail[:200])
        )
    return describe(reports)


def has_started(engine: Engine, name: str, since_ms: int) -> bool:
    """Whether the service ``name`` has said since then that it lives."""
    with Session(engine) as session:
        row = session.get(Service, name)
        return row is not None and row.beat_ms >= since_ms
