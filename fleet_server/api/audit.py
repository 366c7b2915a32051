"""The record of changes, over HTTP; whether it is whole, ``fleet-server audit verify`` says."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fleet_protocol.messages import LAST_WALL_MS
from fleet_protocol.texts import _
from fleet_server.access.roles import Permission
from fleet_server.api.centre import MOST_ITEMS, Auditor, Server
from fleet_server.api.problems import ProblemError
from fleet_server.audit.pages import RecordView, Wanted, list_records

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class Question(BaseModel):
    """Which records are meant; what is not given means all."""

    person: str = Field(default="", max_length=63)
    action: str = Field(default="", max_length=64, description="`rollout` is all `rollout.…` too.")
    subject: str = Field(default="", max_length=200)
    since_ms: int = Field(default=0, ge=0, le=LAST_WALL_MS, description="Milliseconds since 1970 UTC.")
    after: int = Field(default=0, ge=0, le=2**53, description="The number of the last record seen.")
    limit: int = Field(default=100, ge=1, le=MOST_ITEMS, description="At most so many items.")


class RecordList(BaseModel):
    """Records in their order; ``next_after`` asks for those that follow."""

    items: list[RecordView]
    next_after: int


@router.get("")
def audit_records(caller: Auditor, server: Server, asked: Annotated[Question, Query()]) -> RecordList:
    """Who changed what, when, and from where; the oldest first."""
    if not caller.may_everywhere(Permission.AUDIT_READ):
        raise ProblemError(
            403,
            "forbidden",
            _("The record of changes is of the whole fleet, and your right to read it is not."),
            _("Ask somebody whose right to read it is not bound to a site or a tag."),
        )
    wanted = Wanted(asked.person, asked.action, asked.subject, asked.since_ms)
    items = list_records(server.engine, server.config.tenant, wanted, asked.after, asked.limit)
    return RecordList(items=items, next_after=items[-1].number if items else asked.after)
