"""What the server's own processes note of themselves: that they live, and what ails them."""

from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.topics import SERVICE_PREFIX
from fleet_server.database.engine import writing
from fleet_server.database.models import ServerHealth, Service

INGEST_PREFIX: Final = f"{SERVICE_PREFIX}ingest"
"""How the connections of ingest are named."""

BEAT_S: Final = 5.0
"""How often a service says that it lives."""

SILENT_MS: Final = 20_000
"""A service not heard for longer is down: several beats, and a slow commit between."""

_ALONE: Final = {f"{SERVICE_PREFIX}rollouts": "rollouts.down"}
"""Services of which there is one, and the code that tells of its silence."""


def beat(engine: Engine, name: str, started_ms: int, now_ms: int) -> None:
    """Note that service ``name`` lives."""
    with writing(engine) as session:
        session.merge(Service(name=name, started_ms=started_ms, beat_ms=now_ms))


def raise_code(engine: Engine, code: str, since_ms: int, detail: str = "", times: int = 1) -> None:
    """Raise a health code of the catalog, or count it again where it is raised already."""
    with writing(engine) as session:
        entry = session.get(ServerHealth, code, with_for_update=True)
        if entry is None:
            session.add(ServerHealth(code=code, since_ms=since_ms, detail=detail[:200], count=times))
            return
        if entry.cleared_ms is not None:
            entry.since_ms, entry.cleared_ms = since_ms, None
        entry.detail = detail[:200]
        entry.count += times


def clear_code(engine: Engine, code: str, now_ms: int) -> None:
    """Note that what a code told is over; when it was and how often stays."""
    with writing(engine) as session:
        entry = session.get(ServerHealth, code, with_for_update=True)
        if entry is not None and entry.cleared_ms is None:
            entry.cleared_ms = now_ms


def raised(engine: Engine, now_ms: int) -> list[ServerHealth]:
    """Every health code of the server that is raised now, with those of the services that are silent.

    One that has never been heard is silent too: with a broker that is away ingest has stored nothing yet.
    """
    with Session(engine, expire_on_commit=False) as session:
        entries = list(session.exec(select(ServerHealth).where(col(ServerHealth.cleared_ms).is_(None))))
        beats = {one.name: one.beat_ms for one in session.exec(select(Service))}
    ingests = (beat_ms for name, beat_ms in beats.items() if name.startswith(INGEST_PREFIX))
    newest = {"ingest.down": max(ingests, default=None)}
    newest |= {code: beats.get(name) for name, code in _ALONE.items()}
    for code, beat_ms in newest.items():
        if beat_ms is None or now_ms - beat_ms > SILENT_MS:
            since_ms = now_ms if beat_ms is None else beat_ms
            entries.append(ServerHealth(code=code, since_ms=since_ms, detail="", count=1))
    return entries
