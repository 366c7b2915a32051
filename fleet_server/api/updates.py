"""Signed updates over HTTP: the exchange with a key ceremony, publishing, and a device's bundle."""

import tempfile
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from fleet_protocol.texts import _
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Publisher, Reader, Server, TrustManager, Updates, require_reach
from fleet_server.errors import Refused, TooLarge
from fleet_server.updates.export import write_bundle
from fleet_server.updates.online import refusing
from fleet_server.updates.repository import newest_root, versions
from fleet_signing import ceremony
from fleet_signing.ceremony import MAX_BUNDLE, Bundle
from fleet_signing.ceremony import Request as CeremonyRequest
from fleet_signing.metadata import now

router = APIRouter(prefix="/v1/updates", tags=["updates"])

_DOCUMENT: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


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


@router.post("/roots", openapi_extra=_DOCUMENT)
async def import_ceremony(caller: TrustManager, updates: Updates, request: Request) -> Published:
    """Publish what a key ceremony has signed: roots, targets and delegated roles."""
    bundle = await _bundle(request)
    actor = caller.actor(Permission.TRUST_MANAGE)
    return Published(versions=versions(await run_in_threadpool(updates.publish, bundle, actor)))


@router.get("/metadata", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
def published_metadata(_caller: Reader, updates: Updates) -> Response:
    """Everything that was signed offline, for whoever publishes on top of it."""
    return Response(ceremony.encode_bundle(updates.repository.require()), media_type="application/json")


@router.post("/metadata", openapi_extra=_DOCUMENT)
async def publish_metadata(caller: Publisher, updates: Updates, request: Request) -> Published:
    """Publish delegated roles in their next version; the bytes of what they vouch for are here."""
    bundle = await _bundle(request)
    if bundle.image_roots or bundle.director_roots:
        raise Refused(_("roots are published by importing a ceremony: 'fleet key import'"))
    updates.repository.require_vouched()
    actor = caller.actor(Permission.ARTIFACT_PUBLISH)
    return Published(versions=versions(await run_in_threadpool(updates.publish, bundle, actor)))


@router.get("/bundles/{device}", response_class=FileResponse)
def device_bundle(caller: Reader, server: Server, updates: Updates, device: str) -> FileResponse:
    """Everything that one device needs for its updates, as a tar to be carried to it."""
    require_reach(server, caller, Permission.FLEET_READ, device)
    with tempfile.NamedTemporaryFile(suffix=".tar", delete=False) as file:
        path = Path(file.name)
    try:
        write_bundle(updates, device, now(), path)
    except BaseException:
        path.unlink()
        raise
    return FileResponse(path, media_type="application/x-tar", background=BackgroundTask(path.unlink))


async def _bundle(request: Request) -> Bundle:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BUNDLE:
            raise TooLarge(_("signed metadata has at most {limit} bytes").format(limit=MAX_BUNDLE))
    with refusing():
        return ceremony.decode_bundle(bytes(content))
