"""Artifacts over HTTP: their list, their upload, and which one a device is given by hand."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from fleet_protocol.targets import Kind, Mode
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Changes, Limit, Proposer, Publisher, Reader, Reason, Updates
from fleet_server.api.delivering import Terms
from fleet_server.api.proposing import MADE, ReasonOf, Wish, propose
from fleet_server.approvals.pages import ProposalPage
from fleet_server.updates.artifacts import ArtifactSummary
from fleet_server.updates.changes import ASSIGN, WITHDRAW

router = APIRouter(prefix="/v1", tags=["artifacts"])

ArtifactName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_PLACE = rf"^(({'|'.join(Kind)})/[a-z][a-z0-9_]{{0,62}}/[0-9]{{1,10}})?$"


class ArtifactList(BaseModel):
    """One page of artifacts; ``next_after`` asks for the next one, None at the end."""

    items: list[ArtifactSummary]
    next_after: str | None


class Uploaded(BaseModel):
    """An artifact whose bytes are here. It counts for nothing before signed metadata vouches for it."""

    path: str
    sha256: str
    size: int


class Wanted(BaseModel):
    """Which release a device shall have, whether in shadow, on which terms it is fetched, and why."""

    release: int = Field(ge=1, le=2**31)
    mode: Mode = Mode.ACT
    delivery: Terms = Terms()
    reason: Reason


@router.get("/artifacts")
def artifacts(
    _caller: Reader, updates: Updates, limit: Limit = 100, after: Annotated[str, Query(pattern=_PLACE)] = ""
) -> ArtifactList:
    """Published artifacts in the order of kind, name and release."""
    items = updates.artifacts.list(after, limit)
    last = f"{items[-1].kind}/{items[-1].name}/{items[-1].release}" if len(items) == limit else None
    return ArtifactList(items=items, next_after=last)


@router.put(
    "/artifacts/{path:path}",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_artifact(
    caller: Publisher,
    updates: Updates,
    request: Request,
    path: Annotated[str, Path(description="As in the repositories: `models/pressure_leak/2.tar`.")],
) -> Uploaded:
    """Store the bytes of an artifact, checked as a device would check them."""
    actor = caller.actor(Permission.ARTIFACT_PUBLISH)
    with updates.artifacts.incoming(path) as incoming:
        async for part in request.stream():
            incoming.write(part)
        target = await run_in_threadpool(updates.artifacts.take, incoming, path, actor)
    return Uploaded(path=target.path, sha256=target.sha256, size=target.length)


@router.put("/devices/{device}/assignments/{kind}/{name}", status_code=202, responses=MADE)
def assign_artifact(
    caller: Proposer,
    changes: Changes,
    device: str,
    kind: Kind,
    name: ArtifactName,
    wanted: Wanted,
    response: Response,
) -> ProposalPage:
    """Propose to let one device have a release, outside any rollout."""
    arguments: dict[str, Any] = {"device": device, "kind": kind, "name": name, "release": wanted.release}
    arguments |= {"mode": wanted.mode, "delivery": wanted.delivery.model_dump()}
    return propose(changes, caller, Wish(ASSIGN, arguments, wanted.reason), response)


@router.delete("/devices/{device}/assignments/{kind}/{name}", status_code=202, responses=MADE)
def withdraw_artifact(  # noqa: PLR0913 - the place in the path and what is asked of it
    caller: Proposer,
    changes: Changes,
    device: str,
    kind: Kind,
    name: ArtifactName,
    reason: ReasonOf,
    response: Response,
    *,
    mode: Mode = Mode.ACT,
) -> ProposalPage:
    """Propose to let one device be given nothing of this kind and name any more, acting or in shadow."""
    arguments = {"device": device, "kind": kind, "name": name, "mode": mode}
    return propose(changes, caller, Wish(WITHDRAW, arguments, reason), response)
