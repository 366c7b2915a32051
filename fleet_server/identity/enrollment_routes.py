"""Enrollment over HTTPS, for devices that have no identity yet: what they trust, and how they ask.

Whoever asks is unknown, so everything is bounded: how large a request is, and how often an address may ask.
"""

from typing import Final

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleet_protocol.enrollment import CA_PATH, CLAIMS_PATH, MAX_BODY, PREFIX, Application, ClaimRequest
from fleet_server.authority.authority import open_authority
from fleet_server.callers import Paces, Rate, source_of
from fleet_server.config import ServerConfig
from fleet_server.identity.claims import ask
from fleet_server.identity.device_http import (
    answering,
    as_json,
    decoded,
    limited,
    read_body,
)
from fleet_server.identity.invitations import accept

PER_HOUR: Final = 3600.0
BURST: Final = 60.0
"""What one address may ask: a factory's bench behind one address goes on, whoever guesses gets nowhere."""


def routes(engine: Engine, config: ServerConfig) -> list[Route]:
    """The endpoints of enrollment at the server that ``config`` describes."""
    limits = Paces(Rate(PER_HOUR / 3600, BURST))

    async def ca(_request: Request) -> Response:
        authority = await run_in_threadpool(open_authority, config.authority, may_make=False)
        return Response(authority.pem, media_type="application/x-pem-file")

    async def enroll(request: Request) -> Response:
        application = decoded(await read_body(request, MAX_BODY), Application)
        return as_json(await run_in_threadpool(accept, engine, config, application, source_of(request)))

    async def claim(request: Request) -> Response:
        asked = decoded(await read_body(request, MAX_BODY), ClaimRequest)
        return as_json(await run_in_threadpool(ask, engine, config, asked, source_of(request)))

    return [
        Route(CA_PATH, limited(limits, answering(ca))),
        Route(CLAIMS_PATH, limited(limits, answering(claim)), methods=["POST"]),
        Route(PREFIX, limited(limits, answering(enroll)), methods=["POST"]),
    ]
