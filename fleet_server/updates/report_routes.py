"""Devices report their versions over HTTPS: the signed report itself is the proof, no token is asked for."""

from dataclasses import asdict
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fleet_protocol.texts import _
from fleet_protocol.versions import MAX_JWS, REPORT_PATH
from fleet_server.callers import source_of
from fleet_server.errors import TooLarge
from fleet_server.identity import device_http
from fleet_server.identity.token_routes import bad_request
from fleet_server.updates.attesting import ReportDesk


async def _report(request: Request) -> Response:
    try:
        jws = (await device_http.read_body(request, MAX_JWS)).decode("ascii")
    except TooLarge as error:
        raise bad_request(str(error)) from None
    except ValueError:
        raise bad_request(_("this is no signed version report")) from None
    desk: ReportDesk = request.app.state.reports
    taken = await run_in_threadpool(desk.take, jws, source_of(request))
    return JSONResponse(asdict(taken), headers={"Cache-Control": "no-store"})


ROUTES: Final = (Route(REPORT_PATH, _report, methods=["POST"]),)
