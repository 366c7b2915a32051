"""What every endpoint for devices shares: bounded bodies, a bound on how often, one shape of refusal."""

import ipaddress
import logging
import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fleet_protocol.buckets import TokenBucket
from fleet_protocol.texts import _, mark
from fleet_server.errors import Conflict, CsrRefused, EnrollmentRefused, NotFound, ServerError, TooLarge

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

MOST_SOURCES: Final = 10_000
"""Addresses that are remembered at once; beyond it those that have been quiet longest are forgotten."""

_IPV6_SITE: Final = 64
"""Bits of an IPv6 address that one household or cabinet has to itself."""

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


class SourceLimits:
    """How often each source address may ask: ``per_hour`` on average, ``burst`` at once."""

    def __init__(self, per_hour: float, burst: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_hour: Final = per_hour
        self._burst: Final = burst
        self._now_s: Final = now_s
        self._buckets: dict[str, TokenBucket] = {}

    @property
    def wait_s(self) -> int:
        """How long to wait for one more, at least."""
        return math.ceil(3600 / self._per_hour)

    def take(self, address: str) -> bool:
        """Whether ``address`` may ask once more now."""
        source, now_s = _source(address), self._now_s()
        # Put back at the end: the front is who was quiet longest.
        bucket = self._buckets.pop(source, None) or TokenBucket(self._per_hour, self._burst, now_s)
        if len(self._buckets) >= MOST_SOURCES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = bucket
        return bucket.take(now_s)


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


def limited(limits: SourceLimits, endpoint: Endpoint) -> Endpoint:
    """``endpoint`` for callers who do not ask more often than ``limits`` allow."""

    async def answer(request: Request) -> Response:
        if limits.take(source_of(request)):
            return await endpoint(request)
        refusal = problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_often",
            _("There were too many requests from this address."),
            _("Wait some seconds, then try again."),
        )
        refusal.headers["Retry-After"] = str(limits.wait_s)
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


def source_of(request: Request) -> str:
    """The address that ``request`` came from."""
    return request.client.host if request.client else ""


def problem(status: int, code: str, message: str, next_step: str) -> JSONResponse:
    """A refusal in the one shape that there is."""
    return JSONResponse({"code": code, "message": message, "next_step": next_step}, status)


def as_json(content: object) -> Response:
    """``content``, of the protocol, as an answer."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def _source(address: str) -> str:
    """What counts as one source: an IPv4 address, or the part of an IPv6 one that its owner cannot choose."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _IPV6_SITE), strict=False))
    return address
