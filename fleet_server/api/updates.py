"""Signed updates over HTTP: the exchange with a key ceremony, publishing, and a device's bundle."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from fleet_protocol.texts import _
from fleet_server.access.roles import Caller, Permission
from fleet_server.api.centre import Changes, Publisher, Reader, Server, TrustManager, Updates, require_reach
from fleet_server.api.proposing import Wish, propose
from fleet_server.approvals.pages import ProposalPage
from fleet_server.clock import wall_ms
from fleet_server.errors import BadChange, Refused, TooLarge
from fleet_server.identity.device_tokens import read_token_key
from fleet_server.updates.bundle_nonces import BundleNonces
from fleet_server.updates.export import write_bundle
from fleet_server.updates.online import refusing
from fleet_server.updates.publications import CEREMONY, PUBLISH, says_who_signs, takes_approval
from fleet_server.updates.repository import newest_root, versions
from fleet_signing import ceremony
from fleet_signing.ceremony import MAX_BUNDLE, Bundle
from fleet_signing.ceremony import Request as CeremonyRequest
from fleet_signing.metadata import now

router = APIRouter(prefix="/v1/updates", tags=["updates"])

_DOCUMENT: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}
_PROPOSED: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": ProposalPage, "description": "It waits for somebody's approval."},
    201: {"model": ProposalPage, "description": "No approval is needed here: it was done."},
}

MaybeReason = Annotated[str, Query(max_length=200, description="Why, where it takes an approval.")]


class Roots(BaseModel):
    """What a device pins, as JSON texts; None before the first key ceremony."""

    image: str | None
    director: str | None
    updates_url: str


class Published(BaseModel):
    """The version of every role that is published now."""

    versions: dict[str, int]


@router.get("/keys", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
def ceremony_request(_caller: TrustManager, updates: Updates) -> Response:
    """The request for a key ceremony: this server's public keys, and what is published."""
    repository = updates.repository
    request = CeremonyRequest(repository.online.public, repository.current())
    return Response(ceremony.encode_request(request), media_type="application/json")


@router.get("/roots")
def roots(_caller: Reader, updates: Updates) -> Roots:
    """The roots that a device pins, and where it fetches updates."""
    current = updates.repository.current()
    return Roots(
        image=newest_root(current.image_roots) if current else None,
        director=newest_root(current.director_roots) if current else None,
        updates_url=updates.url,
    )


@router.post("/roots", openapi_extra=_DOCUMENT, responses=_PROPOSED)
async def import_ceremony(
    caller: TrustManager,
    updates: Updates,
    changes: Changes,
    request: Request,
    response: Response,
    reason: MaybeReason = "",
) -> Published | ProposalPage:
    """Propose to publish what a key ceremony has signed; the first one of a server is published at once."""
    bundle = await _bundle(request)
    publication = _Publication(CEREMONY, bundle, reason, Permission.TRUST_MANAGE)
    return await run_in_threadpool(_publish, caller, updates, changes, publication, response)


@router.get("/metadata", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
def published_metadata(_caller: Reader, updates: Updates) -> Response:
    """Everything that was signed offline, for whoever publishes on top of it."""
    return Response(ceremony.encode_bundle(updates.repository.require()), media_type="application/json")


@router.post("/metadata", openapi_extra=_DOCUMENT, responses=_PROPOSED)
async def publish_metadata(
    caller: Publisher,
    updates: Updates,
    changes: Changes,
    request: Request,
    response: Response,
    reason: MaybeReason = "",
) -> Published | ProposalPage:
    """Publish models in their next version, or propose to publish policies; their bytes are here."""
    bundle = await _bundle(request)
    if says_who_signs(bundle):
        raise Refused(_("who may sign is published by importing a ceremony: 'fleet key import'"))
    updates.repository.require_vouched()
    publication = _Publication(PUBLISH, bundle, reason, Permission.ARTIFACT_PUBLISH)
    return await run_in_threadpool(_publish, caller, updates, changes, publication, response)


@router.get("/bundles/{device}", response_class=FileResponse)
def device_bundle(caller: Reader, server: Server, updates: Updates, device: str) -> FileResponse:
    """Everything that one device needs for its updates, as a tar to be carried to it."""
    require_reach(server, caller, Permission.FLEET_READ, device)
    nonces = BundleNonces(read_token_key(server.config.token_key))
    with tempfile.NamedTemporaryFile(suffix=".tar", delete=False) as file:
        path = Path(file.name)
    try:
        write_bundle(updates, nonces.request(device, wall_ms()), now(), path)
    except BaseException:
        path.unlink()
        raise
    return FileResponse(path, media_type="application/x-tar", background=BackgroundTask(path.unlink))


class _Publication(NamedTuple):
    """What is to be published, and by which right."""

    action: str
    bundle: Bundle
    reason: str
    permission: Permission


def _publish(
    caller: Caller,
    updates: Updates,
    changes: Changes,
    publication: _Publication,
    response: Response,
) -> Published | ProposalPage:
    bundle = publication.bundle
    if not takes_approval(updates.repository.current(), bundle):
        published = updates.publish(bundle, caller.actor(publication.permission))
        return Published(versions=versions(published))
    if not publication.reason:
        raise BadChange(_("say why: this takes somebody else's approval (the parameter 'reason')"))
    arguments = {"document": ceremony.encode_bundle(bundle).decode()}
    return propose(changes, caller, Wish(publication.action, arguments, publication.reason), response)


async def _bundle(request: Request) -> Bundle:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BUNDLE:
            raise TooLarge(_("signed metadata has at most {limit} bytes").format(limit=MAX_BUNDLE))
    with refusing():
        return ceremony.decode_bundle(bytes(content))
