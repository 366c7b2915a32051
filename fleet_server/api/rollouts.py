"""Rollouts over HTTP: starting one, watching it, and holding it up."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_server.access.roles import Caller, Permission
from fleet_server.api.centre import Limit, Proposer, Reader, Server, Stopper, forbidden
from fleet_server.devices.groups import members
from fleet_server.updates import rollouts as moves
from fleet_server.updates.rollout_pages import RolloutPage, RolloutSummary, get_rollout, list_rollouts, reach
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
    _require_group(server, caller, new.group)
    rules = Rules(waves=tuple(new.waves), max_failures=new.max_failures, soak_s=new.soak_s)
    order = Order(new.group, new.kind, new.name, new.release, rules, new.reason)
    actor = caller.actor(Permission.CHANGE_PROPOSE)
    return _page(server, caller, moves.start(server.engine, server.config.tenant, actor, order))


@router.get("")
def rollouts(
    caller: Reader, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=36)] = ""
) -> RolloutList:
    """Rollouts, the newest first, from the first one older than ``after`` on."""
    scopes = caller.scopes(Permission.FLEET_READ)
    items = list_rollouts(server.engine, server.config.tenant, after, limit, scopes)
    return RolloutList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.get("/{rollout}")
def rollout_page(caller: Reader, server: Server, rollout: RolloutId) -> RolloutPage:
    """One rollout with its waves and those of their devices that the caller sees."""
    return _page(server, caller, rollout)


@router.post("/{rollout}/pause")
def pause_rollout(caller: Stopper, server: Server, rollout: RolloutId) -> RolloutPage:
    """Open no further wave; devices that are under way go on. Who may stop any of them may stop it."""
    _require_any(server, caller, rollout)
    return _act(server, caller, Permission.CHANGE_STOP, rollout, Action.PAUSE)


@router.post("/{rollout}/resume")
def resume_rollout(caller: Proposer, server: Server, rollout: RolloutId) -> RolloutPage:
    """Go on after a pause. It takes the right on all of its devices."""
    inside, all_ = reach(
        server.engine, server.config.tenant, rollout, caller.scopes(Permission.CHANGE_PROPOSE)
    )
    if inside < all_:
        raise forbidden(caller, Permission.CHANGE_PROPOSE)
    return _act(server, caller, Permission.CHANGE_PROPOSE, rollout, Action.RESUME)


@router.post("/{rollout}/abort")
def abort_rollout(caller: Stopper, server: Server, rollout: RolloutId) -> RolloutPage:
    """End it: no device that has not begun gets the artifact any more. Who may stop any of them may."""
    _require_any(server, caller, rollout)
    return _act(server, caller, Permission.CHANGE_STOP, rollout, Action.ABORT)


def _require_group(server: Server, caller: Caller, group: str) -> None:
    """The right to propose has to hold on every device of the group."""
    with Session(server.engine) as session:
        everyone = members(session, server.config.tenant, group)
        scopes = caller.scopes(Permission.CHANGE_PROPOSE)
        if len(members(session, server.config.tenant, group, scopes)) < len(everyone):
            raise forbidden(caller, Permission.CHANGE_PROPOSE)


def _require_any(server: Server, caller: Caller, rollout: str) -> None:
    scopes = caller.scopes(Permission.CHANGE_STOP)
    if not reach(server.engine, server.config.tenant, rollout, scopes)[0]:
        raise forbidden(caller, Permission.CHANGE_STOP)


def _act(server: Server, caller: Caller, right: Permission, rollout: str, action: Action) -> RolloutPage:
    moves.act(server.engine, server.config.tenant, caller.actor(right), rollout, action)
    return _page(server, caller, rollout)


def _page(server: Server, caller: Caller, rollout: str) -> RolloutPage:
    scopes = caller.scopes(Permission.FLEET_READ)
    return get_rollout(server.engine, server.config.tenant, rollout, scopes)
