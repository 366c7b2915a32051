"""What the server's own processes note of themselves: that they live, and what ails them."""

from collections.abc import Iterable, Mapping
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

_SILENT: Final = {
    "ingest.down": INGEST_PREFIX,
    "rollouts.down": f"{SERVICE_PREFIX}rollouts",
    "escalation.down": f"{SERVICE_PREFIX}escalation",
}
"""The code that tells of a service's silence, and how its connections are named."""


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


def keep_codes(engine: Engine, codes: Iterable[str], raised: Mapping[str, str], now_ms: int) -> None:
    """Of ``codes``, raise those that are in ``raised`` with their detail, and clear the others."""
    for code in codes:
        if code in raised:
            raise_code(engine, code, now_ms, raised[code])
        else:
            clear_code(engine, code, now_ms)


def raised(engine: Engine, now_ms: int) -> list[ServerHealth]:
    """Every health code of the server that is raised now, also those of services that are silent.

    One that has never been heard is silent too: with a broker that is away ingest has stored nothing yet.
    """
    with Session(engine, expire_on_commit=False) as session:
        entries = list(session.exec(select(ServerHealth).where(col(ServerHealth.cleared_ms).is_(None))))
        services = session.exec(select(Service)).all()
    for code, prefix in _SILENT.items():
        newest = max((one.beat_ms for one in services if one.name.startswith(prefix)), default=None)
        if newest is None or now_ms - newest > SILENT_MS:
            since_ms = now_ms if newest is None else newest
            entries.append(ServerHealth(code=code, since_ms=since_ms, detail="", count=1))
    return entries
