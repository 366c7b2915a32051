"""The server's HTTPS listener as a device asks it about itself; blocking, one connection, no proxy.

What it answers is believed because it shows a certificate under the pinned roots.
"""

import ssl
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from edge_agent.errors import ServerRefused, ServerUnreachable
from edge_agent.link.https import FAILURES, ask, connect, reason
from fleet_protocol.texts import _

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"

_MAX_ANSWER: Final = 256 * 1024
"""Bytes; certificates have some kilobytes."""


class DeviceServer:
    """The server at ``url``, which is its address without any path of its own."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self.url: Final = url.rstrip("/")
        self._base: Final = urlsplit(url).path.rstrip("/")
        self._connection: Final = connect(url, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: object) -> None:
        self._connection.close()

    def post(self, path: str, content: bytes, kind: str = JSON, token: str = "") -> dict[str, Any]:
        """What the server answers to ``content``, as the bearer of ``token`` where there is one.

        Raises:
            ServerUnreachable: it does not answer, or nothing that can be read.
            ServerRefused: it says no.
        """
        headers = {"Content-Type": kind}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            reply = ask(self._connection, "POST", self._base + path, content, _MAX_ANSWER, headers)
        except FAILURES as error:
            self._connection.close()
            raise self._unreachable(error) from error
        return _understood(reply.status, reply.content)

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            _("the server at {host}:{port} cannot be reached: {reason}").format(
                host=self._connection.host, port=self._connection.port, reason=reason(error)
            )
        )


def _understood(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        answer = {}
    if status == HTTPStatus.OK and answer:
        return answer
    if "error" in answer:
        said = str(answer.get("error_description", answer["error"]))
        raise ServerRefused(f"{said}; {answer.get('next_step', '')}".rstrip("; ."))
    raise ServerUnreachable(_("the server answers {status} and nothing to go by").format(status=status))
