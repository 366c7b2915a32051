"""How a route that changes the world answers: with the proposal that it has made of it."""

from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple

from fastapi import Query, Response
from pydantic import BaseModel

from fleet_server.access.roles import Caller
from fleet_server.api.centre import Reason
from fleet_server.approvals.decision import ProposalState
from fleet_server.approvals.pages import ProposalPage, get_proposal
from fleet_server.approvals.plans import Arguments
from fleet_server.approvals.proposals import Proposals

MADE: Final[dict[int | str, dict[str, Any]]] = {
    201: {"model": ProposalPage, "description": "No approval is needed here: it was done."},
    202: {"description": "It waits for somebody's approval."},
}
"""Beside 202, what a proposing route answers."""

ReasonOf = Annotated[str, Query(min_length=1, max_length=200, description="Why, for whoever asks later.")]


class Why(BaseModel):
    """Why it is asked for."""

    reason: Reason


class Wish(NamedTuple):
    """A change that somebody asks for."""

    action: str
    arguments: Arguments
    reason: str


def propose(changes: Proposals, caller: Caller, wish: Wish, response: Response) -> ProposalPage:
    """Propose ``wish``: 202 where it waits for approvals, 201 where it needed none."""
    identity = changes.propose(caller, wish.action, wish.arguments, wish.reason)
    page = get_proposal(changes.engine, changes.tenant, identity, caller)
    waits = page.proposal.state == ProposalState.PROPOSED
    response.status_code = HTTPStatus.ACCEPTED if waits else HTTPStatus.CREATED
    return page
