"""Groups over HTTP: saving a filter under a name, and the list."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Grouper, Limit, Reader, Server
from fleet_server.devices.groups import MAX_FILTER, GroupView, list_groups, set_group

router = APIRouter(prefix="/v1/groups", tags=["rollouts"])

GroupName = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,63}$")]


class GroupFilter(BaseModel):
    """Terms like `site=north profile=pi5 id=gw-1*`; all must hold, and none are every device."""

    filter: str = Field(max_length=MAX_FILTER)


class GroupList(BaseModel):
    """One page of groups; ``next_after`` asks for the next one, None at the end."""

    items: list[GroupView]
    next_after: str | None


@router.put("/{name}")
def save_group(caller: Grouper, server: Server, name: GroupName, new: GroupFilter) -> GroupView:
    """Save a filter under a name; a rollout that runs keeps the devices of its start."""
    return set_group(
        server.engine, server.config.tenant, caller.actor(Permission.GROUP_WRITE), name, new.filter
    )


@router.get("")
def groups(
    caller: Reader, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=63)] = ""
) -> GroupList:
    """Groups in the order of their names, from the first one after ``after`` on."""
    scopes = caller.scopes(Permission.FLEET_READ)
    items = list_groups(server.engine, server.config.tenant, after, limit, scopes)
    return GroupList(items=items, next_after=items[-1].name if len(items) == limit else None)
