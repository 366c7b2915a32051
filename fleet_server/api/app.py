"""The application: its routers, who may call them, and how it is run and described."""

import json
import socket
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import Engine

from fleet_server import VERSION
from fleet_server.access.door import Door
from fleet_server.access.oidc import Issuer
from fleet_server.access.roles import Actor
from fleet_server.api import (
    approvals,
    artifacts,
    audit,
    claims,
    devices,
    escalations,
    events,
    groups,
    health,
    invitations,
    people,
    proposals,
    revocations,
    rollouts,
    session,
    telemetry,
    tokens,
    updates,
    versions,
)
from fleet_server.api.centre import Centre
from fleet_server.api.limits import LIMITS, guarded
from fleet_server.api.problems import Problem, install
from fleet_server.approvals.actions import open_proposals
from fleet_server.config import ServerConfig, Settings, certificate_in, resolve
from fleet_server.database.engine import open_engine
from fleet_server.updates.bounds import MAX_CONNECTIONS, BoundedProtocol
from fleet_server.updates.office import open_office

GRACE_S: Final = 3
"""How long running requests may take to end when the API is asked to stop."""

_ROUTERS: Final = (
    session.router,
    tokens.router,
    people.router,
    devices.router,
    revocations.router,
    invitations.router,
    claims.batch_router,
    claims.claim_router,
    telemetry.router,
    events.router,
    escalations.router,
    artifacts.router,
    updates.router,
    versions.router,
    groups.router,
    rollouts.router,
    proposals.router,
    approvals.router,
    health.router,
    audit.router,
)


def create_app(engine: Engine, config: ServerConfig) -> FastAPI:
    """The API of the server that ``config`` describes, on its database."""
    app = FastAPI(
        title="Argan fleet server",
        version=VERSION,
        summary="Devices, what they report, how they are, and what they are given.",
        # The framework's own pages load scripts from outside; /openapi.json is served from here.
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": Problem, "description": "Why it was not answered."}},
        generate_unique_id_function=_operation_id,
    )
    app.state.centre = Centre(engine, config)
    issuer = Issuer(config.oidc.issuer, config.oidc.client_id) if config.oidc else None
    app.state.door = Door(engine, config.tenant, issuer)
    install(app)
    for router in _ROUTERS:
        app.include_router(router)
    return app


def openapi_document() -> str:
    """The API's description as it is kept in ``docs/openapi.json``."""
    app = create_app(open_engine("sqlite://"), resolve(Path(), Settings()))
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"


def run(config: ServerConfig, descriptor: int) -> None:
    """Answer on the inherited socket ``descriptor`` until SIGTERM."""
    engine = open_engine(config.database_url)
    open_office(engine, config).settle()
    open_proposals(engine, config).settle(Actor.system("api"))
    app = create_app(engine, config)
    tls = config.api_tls or certificate_in(config.own_api_certificate)
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(app, LIMITS),
            http=BoundedProtocol,
            ws="none",
            access_log=False,
            server_header=False,
            # Whoever asks could name any address in a header.
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=tls.certificate,
            ssl_keyfile=tls.key,
        )
    )
    with socket.socket(fileno=descriptor) as listener:
        server.run(sockets=[listener])


def _operation_id(route: APIRoute) -> str:
    return route.name
