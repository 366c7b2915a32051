"""What every endpoint for devices shares: bounded bodies, a bound on how often, one shape of refusal."""

import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet_protocol.texts import _, mark
from fleet_server.callers import Paces, network_of, source_of
from fleet_server.errors import Conflict, CsrRefused, EnrollmentRefused, NotFound, ServerError, TooLarge

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

log: Final = logging.getLogger(__name__)


_FAMILIES: Final[tuple[tuple[type[ServerError], HTTPStatus, str, str], ...]] = (
    (CsrRefused, HTTPStatus.UNPROCESSABLE_ENTITY, "csr_refused", mark("Remove key.pem, and try again.")),
    (
        Conflict,
        HTTPStatus.CONFLICT,
        "conflict",
        mark("Choose another name, or replace the board: fleet device invite NAME --replace."),
    ),
    (NotFound, HTTPStatus.NOT_FOUND, "not_found", mark("Look at the devices: fleet device list.")),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", mark("Send less.")),
)


def answering(endpoint: Endpoint) -> Endpoint:
    """``endpoint``, whose refusals and failures are answered as JSON: code, message, next step."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except EnrollmentRefused as error:
            return problem(HTTPStatus.FORBIDDEN, error.code, str(error), error.next_step)
        except (ServerError, SQLAlchemyError) as error:
            for family, status, code, next_step in _FAMILIES:
                if isinstance(error, family):
                    return problem(status, code, str(error), _(next_step))
            log.error("a device cannot be answered: %s", error)  # noqa: TRY400 - foreseen, and in words
            later = _("Try again in a minute; the server's log says why.")
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "not_now", _("The server cannot do it now."), later
            )

    return answer


def limited(limits: Paces, endpoint: Endpoint) -> Endpoint:
    """``endpoint`` for callers who do not ask more often than ``limits`` allow."""

    async def answer(request: Request) -> Response:
        if limits.allows(network_of(source_of(request)), time.monotonic()):
            return await endpoint(request)
        refusal = problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_often",
            _("There were too many requests from this address."),
            _("Wait some seconds, then try again."),
        )
        refusal.headers["Retry-After"] = str(limits.rate.pause_s)
        return refusal

    return answer


async def read_body(request: Request, most: int) -> bytes:
    """The body of ``request``, which is never held beyond ``most`` bytes.

    Raises:
        TooLarge: it has more.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise TooLarge(_("a request has at most {most} bytes").format(most=most))
    return bytes(content)


def decoded(content: bytes, kind: type[T]) -> T:
    """``content``, JSON, as ``kind``.

    Raises:
        EnrollmentRefused: it is something else; the message says where.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise EnrollmentRefused(
            "invalid",
            _("the request cannot be read: {reason}").format(reason=error),
            _("Is the agent of the same version as the server?"),
        ) from None


def problem(status: int, code: str, message: str, next_step: str) -> JSONResponse:
    """A refusal in the one shape that there is."""
    return JSONResponse({"code": code, "message": message, "next_step": next_step}, status)


def as_json(content: object) -> Response:
    """``content``, of the protocol, as an answer."""
    return Response(msgspec.json.encode(content), media_type="application/json")
