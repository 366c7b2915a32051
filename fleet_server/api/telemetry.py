"""What devices measured and concluded, and how far each of their numbered flows is committed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from fleet_protocol.messages import LAST_WALL_MS
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Limit, Reader, ReadingLimit, Server, TimeMs, require_reach
from fleet_server.telemetry import query
from fleet_server.telemetry.query import InferenceView, ReadingView, StreamView

router = APIRouter(prefix="/v1/devices/{device}", tags=["telemetry"])


class ReadingList(BaseModel):
    """Readings of one metric, oldest first; of the newest of each metric where none was named."""

    items: list[ReadingView]


class InferenceList(BaseModel):
    """Answers of models, oldest first."""

    items: list[InferenceView]


class StreamList(BaseModel):
    """Numbered flows, the one that moved last first."""

    items: list[StreamView]


def known_device(caller: Reader, server: Server, device: str) -> str:
    """The device in the path, which must be registered and within what the caller sees."""
    require_reach(server, caller, Permission.FLEET_READ, device)
    return device


KnownDevice = Annotated[str, Depends(known_device)]


@router.get("/readings")
def readings(
    _caller: Reader,
    server: Server,
    device: KnownDevice,
    metric: Annotated[str | None, Query(max_length=64, description="Without it: the newest of each.")] = None,
    since_ms: TimeMs = 0,
    until_ms: TimeMs = LAST_WALL_MS,
    limit: ReadingLimit = 1000,
) -> ReadingList:
    """Readings from ``since_ms`` to before ``until_ms``: the newest ``limit`` of them."""
    if metric is None:
        return ReadingList(items=query.latest(server.engine, device)[:limit])
    return ReadingList(items=query.readings(server.engine, device, metric, since_ms, until_ms, limit))


@router.get("/inferences")
def inferences(
    _caller: Reader,
    server: Server,
    device: KnownDevice,
    since_ms: TimeMs = 0,
    until_ms: TimeMs = LAST_WALL_MS,
    limit: ReadingLimit = 1000,
    *,
    shadow: Annotated[
        bool, Query(description="Those of models in shadow, instead of the device's own.")
    ] = False,
) -> InferenceList:
    """Answers from ``since_ms`` to before ``until_ms``: the newest ``limit`` of them."""
    found = query.inferences(server.engine, device, since_ms, until_ms, limit, shadow=shadow)
    return InferenceList(items=found)


@router.get("/streams")
def streams(_caller: Reader, server: Server, device: KnownDevice, limit: Limit = 100) -> StreamList:
    """What is committed of each flow: the contiguous mark, what waits ahead of it, what was lost."""
    return StreamList(items=query.streams(server.engine, device)[:limit])
