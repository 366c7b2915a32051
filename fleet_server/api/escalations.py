"""What devices asked the center, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Changes, Limit, Proposer, Reader, Reason, Server
from fleet_server.api.proposing import MADE, Wish, propose
from fleet_server.approvals.pages import ProposalPage
from fleet_server.escalation import budget
from fleet_server.escalation.history import EscalationView, Place, escalations

router = APIRouter(prefix="/v1/escalations", tags=["escalations"])


class EscalationList(BaseModel):
    """Questions, the newest first; ``next_after`` asks for older ones, None at the end."""

    items: list[EscalationView]
    next_after: str | None


class BudgetView(BaseModel):
    """Questions an hour: of one device, and of all devices together."""

    device_per_hour: float = Field(gt=0, le=1e9)
    tenant_per_hour: float = Field(gt=0, le=1e9)


class NewBudget(BudgetView):
    """What shall hold, and why."""

    reason: Reason


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


@router.get("/budget")
def escalation_budget(_caller: Reader, server: Server) -> BudgetView:
    """How much devices may ask."""
    now = budget.budget(server.engine, server.config.tenant, budget.given(server.config))
    return BudgetView(**now._asdict())


@router.put("/budget", status_code=202, responses=MADE)
def change_budget(caller: Proposer, changes: Changes, new: NewBudget, response: Response) -> ProposalPage:
    """Propose to change it; the service that answers devices takes it up without a restart."""
    return propose(
        changes, caller, Wish(budget.CHANGE, new.model_dump(exclude={"reason"}), new.reason), response
    )


def _place(after: str) -> Place:
    received_ms, device, number = after.split("/")
    return int(received_ms), device, number


def _named(item: EscalationView) -> str:
    return f"{item.received_ms}/{item.device}/{item.id}"
