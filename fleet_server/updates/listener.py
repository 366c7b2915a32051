"""The HTTPS listener for devices: enrollment, their certificates, who is revoked, and updates.

A process of its own with a certificate of the fleet's authority. The image repository is signed and
public; what the director orders is given to its device alone. What is large can be fetched in parts and
gone on with, as long as it is the same (``Range``, ``If-Range``, ``ETag``).
"""

import hashlib
import logging
import re
import socket
from http import HTTPStatus
from typing import Final

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from fleet_protocol.targets import ROLES, SUFFIXES
from fleet_protocol.texts import _
from fleet_server.api.limits import Limits, guarded
from fleet_server.callers import Rate
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine
from fleet_server.errors import DeviceRefused, NotFound, ServerError
from fleet_server.identity import enrollment_routes, renewal
from fleet_server.identity import token_routes as device_routes
from fleet_server.identity.crl_routes import crl_routes
from fleet_server.identity.device_tokens import TokenDesk
from fleet_server.identity.renewal import RenewalDesk
from fleet_server.identity.token_routes import answer_refused, device_of
from fleet_server.updates import report_routes
from fleet_server.updates.attesting import ReportDesk
from fleet_server.updates.bounds import MAX_CONNECTIONS, STALLED_MS, BoundedProtocol
from fleet_server.updates.delta_routes import delta_routes
from fleet_server.updates.office import PREFIX, Office, open_office
from fleet_signing.metadata import now

GRACE_S: Final = 3
IDLE_S: Final = 10

DEVICE_LIMITS: Final = Limits(
    # A thousand devices can stand behind one address, and one that is updated asks for many pieces.
    address=Rate(per_s=500, burst=5000),
    token=Rate(per_s=50, burst=500),
    body=65_536,
)
"""What devices may cost; what takes a processor's time has tighter bounds where it is answered."""

_METADATA: Final = re.compile(r"(?:[1-9][0-9]{0,11}\.)?[a-z]{1,20}\.json\Z")
_ROOT: Final = re.compile(r"[1-9][0-9]{0,11}\.root\.json\Z")
_TARGET: Final = re.compile(
    rf"(?:{'|'.join(ROLES)})/[a-z][a-z0-9_]{{0,62}}/([0-9a-f]{{64}})\.[0-9]{{1,10}}"
    rf"(?:{'|'.join(map(re.escape, SUFFIXES.values()))})\Z"
)

_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"

log: Final = logging.getLogger(__name__)


def create_device_app(engine: Engine, config: ServerConfig) -> Starlette:
    """What devices are answered with by the server that ``config`` describes."""
    office = open_office(engine, config)
    app = Starlette(
        routes=[
            *crl_routes(config.broker),
            *device_routes.ROUTES,
            *renewal.ROUTES,
            *report_routes.ROUTES,
            Route(f"{PREFIX}/image/metadata/{{name}}", _image_metadata),
            Route(f"{PREFIX}/image/targets/{{path:path}}", _image_target),
            *delta_routes(engine, config, office),
            Route(f"{PREFIX}/director/{{device}}/metadata/{{name}}", _director_metadata),
            *enrollment_routes.routes(engine, config),
        ],
        exception_handlers={
            DeviceRefused: answer_refused,
            ServerError: _on_error,
            SQLAlchemyError: _on_error,
        },
    )
    app.state.office = office
    app.state.desk, app.state.renewals = TokenDesk(engine, config), RenewalDesk(engine, config)
    app.state.reports = ReportDesk(engine, config, app.state.desk)
    return app


def run(config: ServerConfig, descriptor: int) -> None:
    """Answer on the inherited socket ``descriptor`` until SIGTERM."""
    engine = open_engine(config.database_url)
    folder = config.device_certificate
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(create_device_app(engine, config), DEVICE_LIMITS),
            http=BoundedProtocol,
            ws="none",
            access_log=False,
            server_header=False,
            # Whoever asks could name any address in a header.
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=IDLE_S,
            limit_concurrency=MAX_CONNECTIONS,
            ssl_certfile=folder / "cert.pem",
            ssl_keyfile=folder / "key.pem",
        )
    )
    with socket.socket(fileno=descriptor) as listener:
        # Every connection inherits it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        server.run(sockets=[listener])


async def _image_metadata(request: Request) -> Response:
    name = request.path_params["name"]
    return await run_in_threadpool(_read_image, _office(request), name, request)


async def _director_metadata(request: Request) -> Response:
    device, name = request.path_params["device"], request.path_params["name"]
    return await run_in_threadpool(_read_director, _office(request), device, name, request)


async def _image_target(request: Request) -> Response:
    match = _TARGET.match(request.path_params["path"])
    if match is None:
        return _nothing()
    path = _office(request).artifacts.path(match[1])
    try:
        status = await run_in_threadpool(path.stat)
    except FileNotFoundError:
        return _nothing()
    # Its name is its content's digest, so nobody has to look at the content for a tag.
    headers = {"ETag": f'"{match[1]}"', "Cache-Control": _FOR_EVER}
    return FileResponse(path, headers=headers, media_type="application/octet-stream", stat_result=status)


def _read_image(office: Office, name: str, request: Request) -> Response:
    if _METADATA.match(name) is None:
        return _nothing()
    if name == "timestamp.json":
        office.repository.renew(now())
    return _answer(request, office.repository.metadata(name), name)


def _read_director(office: Office, device: str, name: str, request: Request) -> Response:
    if device_of(request).device != device:
        raise DeviceRefused(
            HTTPStatus.FORBIDDEN,
            "access_denied",
            _("what the director orders is given to its own device alone"),
            _("Compare the device id with the certificate's name."),
        )
    if _METADATA.match(name) is None:
        return _nothing()
    if _ROOT.match(name):
        return _answer(request, office.repository.director_root(name), name)
    office.repository.require_vouched()
    return _answer(request, office.director.file(device, name, now()), name)


def _answer(request: Request, content: bytes | None, name: str) -> Response:
    if content is None:
        return _nothing()
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": _FOR_EVER if name[0].isdigit() else _ASK_AGAIN}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def _nothing() -> Response:
    return PlainTextResponse("not there\n", HTTPStatus.NOT_FOUND)


def _on_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, NotFound):
        return _nothing()
    log.error("a device cannot be answered: %s", error)
    return PlainTextResponse("not now\n", HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "60"})


def _office(request: Request) -> Office:
    office: Office = request.app.state.office
    return office
