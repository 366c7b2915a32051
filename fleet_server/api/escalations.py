"""What devices asked the center, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Limit, Reader, Server
from fleet_server.escalation.history import EscalationView, Place, escalations

router = APIRouter(prefix="/v1/escalations", tags=["escalations"])


class EscalationList(BaseModel):
    """Questions, the newest first; ``next_after`` asks for older ones, None at the end."""

    items: list[EscalationView]
    next_after: str | None


@router.get("", name="escalations")
def listed(
    caller: Reader,
    server: Server,
    limit: Limit = 100,
    after: Annotated[str, Query(pattern=r"^(\d{1,16}/[a-z0-9-]{1,63}/[0-9a-f]{32})?$")] = "",
) -> EscalationList:
    """What devices could not decide, and what they were told; from the first one after ``after`` on."""
    scopes, before = caller.scopes(Permission.FLEET_READ), _place(after) if after else None
    items = escalations(server.engine, server.config.tenant, before, limit, scopes)
    return EscalationList(items=items, next_after=_named(items[-1]) if len(items) == limit else None)


def _place(after: str) -> Place:
    received_ms, device, number = after.split("/")
    return int(received_ms), device, number


def _named(item: EscalationView) -> str:
    return f"{item.received_ms}/{item.device}/{item.id}"
