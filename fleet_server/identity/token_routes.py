"""What devices ask for over HTTPS about themselves: nonces and tokens; and who asks for what is private.

Other routes of the device listener take :func:`device_of` to know who asks, and raise
:class:`~fleet_server.errors.DeviceRefused`, which :func:`answer_refused` puts into OAuth's form.
"""

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fleet_protocol.texts import _
from fleet_server.callers import source_of
from fleet_server.errors import DeviceRefused, TooLarge
from fleet_server.identity import device_http
from fleet_server.identity.device_tokens import (
    NONCE_PATH,
    TOKEN_PATH,
    DeviceCaller,
    Scope,
    TokenDesk,
    unauthorized,
)

GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

MAX_BODY: Final = 32 * 1024
"""Bytes; an assertion has some 700, a certificate request 500."""

_FIELDS: Final = 8


def device_of(request: Request, *scopes: Scope) -> DeviceCaller:
    """Which device asks; ``scopes`` are those that do, all of a device's own where none is given.

    Raises:
        DeviceRefused: it shows no token, or none that counts.
    """
    kind, _space, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise unauthorized(_("this is private to a device"), code="")
    return desk_of(request).caller(token.strip(), source_of(request), frozenset(scopes or (Scope.DEVICE,)))


def answer_refused(_request: Request, error: Exception) -> Response:
    """A refusal in OAuth's form, with what to do."""
    if not isinstance(error, DeviceRefused):
        raise error
    headers = {"Cache-Control": "no-store"}
    if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        told = f', error="{error.code}"' if error.code else ""
        headers["WWW-Authenticate"] = f'Bearer realm="argan"{told}'
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = "60"
    content = {
        "error": error.code or "unauthorized",
        "error_description": str(error),
        "next_step": error.next_step,
    }
    return JSONResponse(content, error.status, headers)


def desk_of(request: Request) -> TokenDesk:
    """The desk of this process."""
    desk: TokenDesk = request.app.state.desk
    return desk


async def read_body(request: Request) -> bytes:
    """The body of ``request``.

    Raises:
        DeviceRefused: it is too long.
    """
    try:
        return await device_http.read_body(request, MAX_BODY)
    except TooLarge as error:
        raise bad_request(str(error)) from None


def bad_request(message: str, code: str = "invalid_request") -> DeviceRefused:
    """The answer to what cannot be understood."""
    return DeviceRefused(
        HTTPStatus.BAD_REQUEST, code, message, _("Compare the agent's version with the server's.")
    )


async def _nonce(request: Request) -> Response:
    return _fresh(desk_of(request).nonce(source_of(request)))


async def _token(request: Request) -> Response:
    form = _form(await read_body(request))
    if form.get("grant_type") != [GRANT]:
        raise bad_request(_("grant_type has to be {grant}").format(grant=GRANT), "unsupported_grant_type")
    assertions = form.get("assertion", [])
    if len(assertions) != 1:
        raise bad_request(_("give one assertion"))
    return _fresh(await run_in_threadpool(desk_of(request).token, assertions[0], source_of(request)))


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(), max_num_fields=_FIELDS)
    except ValueError as error:
        raise bad_request(_("this is no form: {reason}").format(reason=error)) from None


def _fresh(content: dict[str, object]) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


ROUTES: Final = (
    Route(NONCE_PATH, _nonce, methods=["POST"]),
    Route(TOKEN_PATH, _token, methods=["POST"]),
)
