"""The rules over HTTP: how many approvals a change takes, and proposing other ones."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Changes, Reader, Reason, Server, TrustManager
from fleet_server.api.proposing import MADE, Wish, propose
from fleet_server.approvals.decision import MOST_APPROVALS
from fleet_server.approvals.pages import ProposalPage
from fleet_server.approvals.rules import SET, RuleView, list_rules

router = APIRouter(prefix="/v1/approval-rules", tags=["approvals"])


class NewRule(BaseModel):
    """A rule; an empty site or action means all others, and null approvals take the rule away."""

    site: str = Field(default="", max_length=63)
    action: str = Field(default="", max_length=64)
    approvals: int | None = Field(ge=0, le=MOST_APPROVALS)
    reason: Reason


class RuleList(BaseModel):
    """The rules for sites that the caller sees and for all. Where none holds, a change takes one approval."""

    items: list[RuleView]


@router.get("")
def approval_rules(caller: Reader, server: Server) -> RuleList:
    """The rules, by site and action."""
    scopes = caller.scopes(Permission.FLEET_READ)
    return RuleList(items=list_rules(server.engine, server.config.tenant, scopes))


@router.put("", status_code=202, responses=MADE)
def set_approval_rule(
    caller: TrustManager, changes: Changes, new: NewRule, response: Response
) -> ProposalPage:
    """Propose another rule; it takes as many approvals as the rules of now ask for."""
    wish = Wish(SET, new.model_dump(exclude={"reason"}), new.reason)
    return propose(changes, caller, wish, response)
