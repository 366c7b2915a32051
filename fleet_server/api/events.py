"""What policies raised, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Limit, Reader, Server, TimeMs
from fleet_server.telemetry import query
from fleet_server.telemetry.query import EventView

router = APIRouter(prefix="/v1/events", tags=["events"])


class EventList(BaseModel):
    """Events in the order of storing; ``next_after`` asks for those stored later."""

    items: list[EventView]
    next_after: int


@router.get("")
def events(
    caller: Reader,
    server: Server,
    since_ms: TimeMs = 0,
    after: Annotated[int, Query(ge=0, le=2**53, description="The id of the last event seen.")] = 0,
    limit: Limit = 100,
) -> EventList:
    """Events from ``since_ms`` on that were stored after event ``after``."""
    scopes = caller.scopes(Permission.FLEET_READ)
    items = query.events(server.engine, server.config.tenant, since_ms, after, limit, scopes)
    return EventList(items=items, next_after=items[-1].id if items else after)
