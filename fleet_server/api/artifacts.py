"""Artifacts over HTTP: their list, their upload, and which one a device is given by hand."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from fleet_protocol.targets import Kind
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Limit, Proposer, Publisher, Reader, Server, Updates, require_reach
from fleet_server.updates.artifacts import ArtifactSummary
from fleet_server.updates.assigning import assign, withdraw

router = APIRouter(prefix="/v1", tags=["artifacts"])

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_PLACE = r"^((model|policy)/[a-z][a-z0-9_]{0,62}/[0-9]{1,10})?$"


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
    """Which release a device shall have."""

    release: int = Field(ge=1, le=2**31)


class Assigned(BaseModel):
    """What a device shall have of one kind and name; None is nothing."""

    device: str
    kind: Kind
    name: str
    release: int | None
    sha256: str | None


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
    with updates.artifacts.incoming() as incoming:
        async for part in request.stream():
            incoming.write(part)
        target = await run_in_threadpool(updates.artifacts.take, incoming, path, actor)
    return Uploaded(path=target.path, sha256=target.sha256, size=target.length)


@router.put("/devices/{device}/assignments/{kind}/{name}")
def assign_artifact(
    caller: Proposer,
    server: Server,
    device: str,
    kind: Kind,
    name: Annotated[str, Path(pattern=_NAME)],
    wanted: Wanted,
) -> Assigned:
    """Let one device have a release, outside any rollout."""
    require_reach(server, caller, Permission.CHANGE_PROPOSE, device)
    actor = caller.actor(Permission.CHANGE_PROPOSE)
    artifact = assign(server.engine, server.config.tenant, actor, device, (kind, name), wanted.release)
    return Assigned(device=device, kind=kind, name=name, release=artifact.release, sha256=artifact.sha256)


@router.delete("/devices/{device}/assignments/{kind}/{name}")
def withdraw_artifact(
    caller: Proposer, server: Server, device: str, kind: Kind, name: Annotated[str, Path(pattern=_NAME)]
) -> Assigned:
    """Let one device be given nothing of this kind and name any more."""
    require_reach(server, caller, Permission.CHANGE_PROPOSE, device)
    actor = caller.actor(Permission.CHANGE_PROPOSE)
    withdraw(server.engine, server.config.tenant, actor, device, (kind, name))
    return Assigned(device=device, kind=kind, name=name, release=None, sha256=None)
