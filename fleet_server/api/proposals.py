"""Proposals over HTTP: asking for a change, deciding on one, and breaking the glass."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from fleet_server.api.centre import (
    Approver,
    Changes,
    GlassBreaker,
    Limit,
    Proposer,
    Reader,
    Reason,
)
from fleet_server.api.proposing import MADE, Why, Wish, propose
from fleet_server.approvals.pages import ProposalPage, ProposalSummary, get_proposal, list_proposals

router = APIRouter(prefix="/v1", tags=["approvals"])

ProposalId = Annotated[str, Path(max_length=36)]


class NewProposal(BaseModel):
    """A change to ask for; ``arguments`` are as its action takes them (docs/approvals.md)."""

    action: str = Field(max_length=64)
    arguments: dict[str, Any]
    reason: Reason


class Agreement(BaseModel):
    """``sha256`` is the digest of the proposal as it was seen."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    reason: str = Field(default="", max_length=200)


class ProposalList(BaseModel):
    """One page of proposals; ``next_after`` asks for the next one, None at the end."""

    items: list[ProposalSummary]
    next_after: str | None


@router.post("/proposals", status_code=202, responses=MADE)
def propose_change(caller: Proposer, changes: Changes, new: NewProposal, response: Response) -> ProposalPage:
    """Ask for a change."""
    return propose(changes, caller, Wish(new.action, new.arguments, new.reason), response)


@router.get("/proposals")
def proposals(
    caller: Reader,
    changes: Changes,
    limit: Limit = 100,
    after: Annotated[str, Query(max_length=36)] = "",
    waiting: Annotated[bool, Query(description="Only those that can be decided on.")] = False,  # noqa: FBT002
) -> ProposalList:
    """Proposals, the newest first, from the first one older than ``after`` on."""
    items = list_proposals(changes.engine, changes.tenant, after, limit, is_open=waiting, seer=caller)
    return ProposalList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.get("/proposals/{proposal}")
def proposal_page(caller: Reader, changes: Changes, proposal: ProposalId) -> ProposalPage:
    """One proposal: what it changes, what it reaches, who said what."""
    return get_proposal(changes.engine, changes.tenant, proposal, caller)


@router.post("/proposals/{proposal}/approve")
def approve_proposal(
    caller: Approver, changes: Changes, proposal: ProposalId, agreement: Agreement
) -> ProposalPage:
    """Agree to what was seen; the last approval that is needed carries it out."""
    changes.approve(caller, proposal, agreement.sha256, agreement.reason)
    return get_proposal(changes.engine, changes.tenant, proposal, caller)


@router.post("/proposals/{proposal}/reject")
def reject_proposal(caller: Approver, changes: Changes, proposal: ProposalId, why: Why) -> ProposalPage:
    """Say no, which ends it."""
    changes.reject(caller, proposal, why.reason)
    return get_proposal(changes.engine, changes.tenant, proposal, caller)


@router.post("/proposals/{proposal}/withdraw")
def withdraw_proposal(caller: Proposer, changes: Changes, proposal: ProposalId) -> ProposalPage:
    """Take back what one has proposed oneself."""
    changes.withdraw(caller, proposal)
    return get_proposal(changes.engine, changes.tenant, proposal, caller)


@router.post("/proposals/{proposal}/break-glass")
def break_glass(caller: GlassBreaker, changes: Changes, proposal: ProposalId, why: Why) -> ProposalPage:
    """Carry it out without approvals, for everybody to see until somebody else acknowledges it."""
    changes.break_glass(caller, proposal, why.reason)
    return get_proposal(changes.engine, changes.tenant, proposal, caller)


@router.post("/break-glass/{proposal}/acknowledge")
def acknowledge_break_glass(caller: Approver, changes: Changes, proposal: ProposalId) -> ProposalPage:
    """Take note that somebody else has broken the glass."""
    changes.acknowledge(caller, proposal)
    return get_proposal(changes.engine, changes.tenant, proposal, caller)
