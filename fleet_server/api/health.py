"""How the server is, and how much it has taken in, over HTTP."""

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Reader, Server
from fleet_server.clock import wall_ms
from fleet_server.devices.health import HealthItem
from fleet_server.health import server_health
from fleet_server.telemetry import query
from fleet_server.telemetry.query import Counts, Latency

router = APIRouter(prefix="/v1", tags=["health"])

_RATE_MS: Final = 60_000


class Health(BaseModel):
    """``status`` is the worst severity among what is raised: ok, info, warning or critical."""

    status: str
    items: list[HealthItem]
    now_ms: int


class Stats(BaseModel):
    """Totals ever stored, and the way from sensor to row over the last minute."""

    counts: Counts
    latency: Latency | None
    now_ms: int


@router.get("/health")
def health(_caller: Reader, server: Server) -> Health:
    """The server's own health; a device's stands on its page."""
    items = server_health(server.engine)
    return Health(status=items[0].severity if items else "ok", items=items, now_ms=wall_ms())


@router.get("/stats")
def stats(caller: Reader, server: Server) -> Stats:
    """How much was stored of the devices that the caller sees; two calls give a rate."""
    now_ms, tenant = wall_ms(), server.config.tenant
    scopes = caller.scopes(Permission.FLEET_READ)
    return Stats(
        counts=query.counts(server.engine, tenant, scopes),
        latency=query.latency(server.engine, tenant, now_ms - _RATE_MS, scopes),
        now_ms=now_ms,
    )
