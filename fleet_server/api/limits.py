"""What anybody may cost who asks over HTTP, and what no answer lacks: wraps any ASGI application.

Requests are counted by address and by token, in memory that does not grow. A body that is too large is
refused by its length before a byte of it is read, or at the byte that is too many where it names none.
Every answer says that no browser shall keep it, show it in a frame, or run anything of it.
"""

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_protocol.targets import MAX_ARTIFACT, MAX_IMAGE
from fleet_protocol.texts import _
from fleet_server.api.problems import Problem
from fleet_server.callers import Paces, Rate, network_of
from fleet_signing.ceremony import MAX_BUNDLE


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may cost. ``bodies`` and ``costly`` go by how method and path begin; the first one counts.

    ``body`` is how many bytes a body has at most where ``bodies`` says nothing else.
    """

    address: Rate
    token: Rate
    body: int
    bodies: Sequence[tuple[str, int]] = ()
    costly: Mapping[str, Rate] = field(default_factory=dict)


LIMITS: Final = Limits(
    # A console asks a few times a second, a script pages through ten thousand devices in ten requests.
    address=Rate(per_s=100, burst=1000),
    token=Rate(per_s=50, burst=500),
    body=65_536,
    bodies=(
        ("PUT /v1/artifacts/os/", MAX_IMAGE),
        ("PUT /v1/artifacts/", MAX_ARTIFACT),
        ("POST /v1/updates/metadata", MAX_BUNDLE),
        ("POST /v1/updates/roots", MAX_BUNDLE),
    ),
    # Each takes a fifth of a second of a processor; a person logs in once a day.
    costly={
        "POST /v1/session": Rate(per_s=0.5, burst=10),
        "PUT /v1/session/": Rate(per_s=0.5, burst=10),
        # It may ask the issuer, elsewhere.
        "GET /v1/session/oidc": Rate(per_s=0.5, burst=10),
    },
)
"""What the API allows."""

_HEADERS: Final = (
    ("Strict-Transport-Security", "max-age=31536000"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


def guarded(app: ASGIApp, limits: Limits) -> ASGIApp:
    """``app`` behind ``limits``, with the headers that every answer has."""
    return _Headers(_Rates(_Bodies(app, limits), limits, time.monotonic))


class _Rates:
    """Refuses who asks too often, before anything is done for them."""

    def __init__(self, app: ASGIApp, limits: Limits, now_s: Callable[[], float]) -> None:
        self._app: Final = app
        self._now_s: Final = now_s
        self._addresses: Final = Paces(limits.address)
        self._tokens: Final = Paces(limits.token)
        self._costly: Final = [(start, Paces(rate)) for start, rate in limits.costly.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait_s = self._wait_s(scope) if scope["type"] == "http" else 0.0
        if wait_s <= 0.0:
            return await self._app(scope, receive, send)
        problem = Problem(
            code="too_many_requests",
            message=_("There were too many requests from you."),
            next_step=_("Wait {seconds} s, and ask less often.").format(seconds=math.ceil(wait_s)),
        )
        headers = {"Retry-After": str(math.ceil(wait_s))}
        answer = JSONResponse(problem.model_dump(), HTTPStatus.TOO_MANY_REQUESTS, headers)
        return await answer(scope, receive, send)

    def _wait_s(self, scope: Scope) -> float:
        now_s, address = self._now_s(), network_of(scope["client"][0] if scope.get("client") else "")
        waits = [self._addresses.wait_s(address, now_s)]
        token = Headers(scope=scope).get("authorization")
        if token:
            # Not the token itself: what is in memory can end up in a report about a crash.
            waits.append(self._tokens.wait_s(hashlib.sha256(token.encode()).hexdigest(), now_s))
        asked = _asked(scope)
        waits += [
            budgets.wait_s(address, now_s) for start, budgets in self._costly if asked.startswith(start)
        ]
        return max(waits)


class _Bodies:
    """Refuses what is larger than it may be."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app: Final = app
        self._limits: Final = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        asked = _asked(scope)
        most = next(
            (most for start, most in self._limits.bodies if asked.startswith(start)), self._limits.body
        )
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            problem = Problem(
                code="too_large", message=_too_large(most), next_step=_("Send something smaller.")
            )
            # What is not read cannot be told from the next request.
            headers = {"Connection": "close"}
            answer = JSONResponse(problem.model_dump(), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, headers)
            return await answer(scope, receive, send)
        return await self._app(scope, _counted(receive, most), send)


class _Headers:
    """Adds what every answer says; what an answer says itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


def _counted(receive: Receive, most: int) -> Callable[[], Awaitable[Message]]:
    """``receive`` that ends at the byte that is too many."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message: dict[str, Any] = dict(await receive())
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(most))
        return message

    return counting


def _asked(scope: Scope) -> str:
    return f"{scope['method']} {scope['path']}"


def _too_large(most: int) -> str:
    return _("This takes at most {most} bytes.").format(most=most)
