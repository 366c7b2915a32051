"""Rollouts over HTTP: starting one, watching it, and holding it up."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from fleet_protocol.targets import Kind, Mode
from fleet_server.access.roles import Caller, Permission
from fleet_server.api.centre import Changes, Limit, Proposer, Reader, Reason, Server, Stopper, forbidden
from fleet_server.api.delivering import Terms
from fleet_server.api.proposing import MADE, Why, Wish, propose
from fleet_server.approvals.pages import ProposalPage
from fleet_server.updates import rollouts as moves
from fleet_server.updates.changes import RESUME, START
from fleet_server.updates.rollout_pages import RolloutPage, RolloutSummary, get_rollout, list_rollouts, reach
from fleet_server.updates.rollout_rules import MAX_SOAK_S, MAX_WAVES
from fleet_server.updates.rollouts import Action

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])

RolloutId = Annotated[str, Path(max_length=36)]


class NewRollout(BaseModel):
    """A rollout to start. Each wave says how much of the group has it in all: `10%`, or a number."""

    group: str = Field(max_length=63)
    kind: Kind
    name: str = Field(min_length=1, max_length=64)
    release: int = Field(ge=1, le=2**53)
    mode: Mode = Mode.ACT
    waves: list[str] = Field(default=["100%"], min_length=1, max_length=MAX_WAVES)
    max_failures: int = Field(default=0, ge=0, le=1_000_000)
    soak_s: int = Field(default=0, ge=0, le=MAX_SOAK_S)
    delivery: Terms = Terms()
    reason: Reason


class RolloutList(BaseModel):
    """One page of rollouts; ``next_after`` asks for the next one, None at the end."""

    items: list[RolloutSummary]
    next_after: str | None


@router.post("", status_code=202, responses=MADE)
def start_rollout(caller: Proposer, changes: Changes, new: NewRollout, response: Response) -> ProposalPage:
    """Propose to cut the group into waves and begin; the rollout then has the proposal's id."""
    rules: dict[str, Any] = {"waves": new.waves, "max_failures": new.max_failures, "soak_s": new.soak_s}
    rules["delivery"] = new.delivery.model_dump()
    asked = new.model_dump(include={"group", "kind", "name", "release", "mode", "reason"})
    return propose(changes, caller, Wish(START, asked | {"rules": rules}, new.reason), response)


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
    return _stop(server, caller, rollout, Action.PAUSE)


@router.post("/{rollout}/resume", status_code=202, responses=MADE)
def resume_rollout(
    caller: Proposer, changes: Changes, rollout: RolloutId, why: Why, response: Response
) -> ProposalPage:
    """Propose to go on after a pause."""
    return propose(changes, caller, Wish(RESUME, {"rollout": rollout}, why.reason), response)


@router.post("/{rollout}/abort")
def abort_rollout(caller: Stopper, server: Server, rollout: RolloutId) -> RolloutPage:
    """End it: no device that has not begun gets the artifact any more. Who may stop any of them may."""
    return _stop(server, caller, rollout, Action.ABORT)


def _stop(server: Server, caller: Caller, rollout: str, action: Action) -> RolloutPage:
    tenant = server.config.tenant
    if not reach(server.engine, tenant, rollout, caller.scopes(Permission.CHANGE_STOP))[0]:
        raise forbidden(caller, Permission.CHANGE_STOP)
    moves.act(server.engine, tenant, rollout, action, caller.actor(Permission.CHANGE_STOP))
    return _page(server, caller, rollout)


def _page(server: Server, caller: Caller, rollout: str) -> RolloutPage:
    scopes = caller.scopes(Permission.FLEET_READ)
    return get_rollout(server.engine, server.config.tenant, rollout, scopes)
