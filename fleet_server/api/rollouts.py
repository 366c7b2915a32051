"""Rollouts over HTTP: starting one, watching it, and holding it up."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from fleet_protocol.targets import Kind
from fleet_server.access.roles import Actor, Permission
from fleet_server.api.centre import Limit, Proposer, Reader, Server, Stopper
from fleet_server.updates import rollouts as moves
from fleet_server.updates.rollout_pages import RolloutPage, RolloutSummary, get_rollout, list_rollouts
from fleet_server.updates.rollout_rules import MAX_SOAK_S, MAX_WAVES, Rules
from fleet_server.updates.rollouts import Action, Order

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])

RolloutId = Annotated[str, Path(max_length=36)]


class NewRollout(BaseModel):
    """A rollout to start. Each wave says how much of the group has it in all: `10%`, or a number."""

    group: str = Field(max_length=63)
    kind: Kind
    name: str = Field(min_length=1, max_length=64)
    release: int = Field(ge=1, le=2**53)
    waves: list[str] = Field(default=["100%"], min_length=1, max_length=MAX_WAVES)
    max_failures: int = Field(default=0, ge=0, le=1_000_000)
    soak_s: int = Field(default=0, ge=0, le=MAX_SOAK_S)
    reason: str = Field(min_length=1, max_length=200)


class RolloutList(BaseModel):
    """One page of rollouts; ``next_after`` asks for the next one, None at the end."""

    items: list[RolloutSummary]
    next_after: str | None


@router.post("", status_code=201)
def start_rollout(caller: Proposer, server: Server, new: NewRollout) -> RolloutPage:
    """Cut the group into waves and begin."""
    rules = Rules(waves=tuple(new.waves), max_failures=new.max_failures, soak_s=new.soak_s)
    order = Order(new.group, new.kind, new.name, new.release, rules, new.reason)
    actor = caller.actor(Permission.CHANGE_PROPOSE)
    return _page(server, moves.start(server.engine, server.config.tenant, actor, order))


@router.get("")
def rollouts(
    _caller: Reader, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=36)] = ""
) -> RolloutList:
    """Rollouts, the newest first, from the first one older than ``after`` on."""
    items = list_rollouts(server.engine, server.config.tenant, after, limit)
    return RolloutList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.get("/{rollout}")
def rollout_page(_caller: Reader, server: Server, rollout: RolloutId) -> RolloutPage:
    """One rollout with its waves and their devices."""
    return _page(server, rollout)


@router.post("/{rollout}/pause")
def pause_rollout(caller: Stopper, server: Server, rollout: RolloutId) -> RolloutPage:
    """Open no further wave; devices that are under way go on."""
    return _act(server, caller.actor(Permission.CHANGE_STOP), rollout, Action.PAUSE)


@router.post("/{rollout}/resume")
def resume_rollout(caller: Proposer, server: Server, rollout: RolloutId) -> RolloutPage:
    """Go on after a pause."""
    return _act(server, caller.actor(Permission.CHANGE_PROPOSE), rollout, Action.RESUME)


@router.post("/{rollout}/abort")
def abort_rollout(caller: Stopper, server: Server, rollout: RolloutId) -> RolloutPage:
    """End it: no device that has not begun gets the artifact any more."""
    return _act(server, caller.actor(Permission.CHANGE_STOP), rollout, Action.ABORT)


def _act(server: Server, actor: Actor, rollout: str, action: Action) -> RolloutPage:
    moves.act(server.engine, server.config.tenant, actor, rollout, action)
    return _page(server, rollout)


def _page(server: Server, rollout: str) -> RolloutPage:
    return get_rollout(server.engine, server.config.tenant, rollout)
