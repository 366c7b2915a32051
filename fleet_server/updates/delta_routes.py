"""Deltas over HTTP, beside the artifacts that they are made from."""

import re
from http import HTTPStatus
from typing import Final

from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from fleet_server.config import ServerConfig
from fleet_server.updates.deltas import Deltas, NotYet
from fleet_server.updates.office import PREFIX, Office

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_FOR_A_DAY: Final = "public, max-age=86400"
_AGAIN_S: Final = "60"
_FOLDER: Final = "deltas"


def delta_routes(engine: Engine, config: ServerConfig, office: Office) -> list[Route]:
    """The one address: ``image/deltas/<from>/<to>.zst``, by SHA-256."""
    deltas = Deltas(config.updates / _FOLDER, office.artifacts, engine, config.tenant)

    async def delta(request: Request) -> Response:
        pair = (request.path_params["old"], request.path_params["new"])
        if not all(map(_DIGEST.match, pair)):
            return _nothing()
        try:
            path = await deltas.provide(pair)
        except NotYet:
            return PlainTextResponse("not yet\n", HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": _AGAIN_S})
        if path is None:
            return _nothing()
        status = path.stat()
        # Made anew it may have other bytes, which must not be joined to the first ones.
        headers = {"ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"', "Cache-Control": _FOR_A_DAY}
        return FileResponse(path, headers=headers, media_type="application/zstd", stat_result=status)

    return [Route(f"{PREFIX}/image/deltas/{{old}}/{{new}}.zst", delta)]


def _nothing() -> Response:
    return PlainTextResponse("not there\n", HTTPStatus.NOT_FOUND)
