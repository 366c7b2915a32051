"""HTTPS as the agent speaks it, with the standard library alone: whom it trusts, how a server is reached.

No proxy, no redirection, nothing of the environment. What a failure means is its caller's to say.
"""

import http.client
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from edge_agent import AGENT
from edge_agent.errors import IdentityError
from fleet_protocol.texts import _

CHUNK: Final = 64 * 1024
"""Bytes read at once."""

TIMEOUT_S: Final = 30.0
"""A server that says nothing for so long is not there."""

ANSWER_S: Final = 120.0
"""A short answer that takes longer than this is held back on purpose or useless."""

NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""

FAILURES: Final = (OSError, http.client.HTTPException)
"""What talking to a server may raise; OSError includes all of ssl."""

_JSON: Final = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    """A whole short answer."""

    status: int
    content: bytes


def tls_context(ca: Path, *, check_dates: bool) -> ssl.SSLContext:
    """A client context that trusts the certificates in the file ``ca`` alone.

    With a clock that cannot be believed, validity dates are not looked at; everything else is.

    Raises:
        IdentityError: ``ca`` cannot be read.
    """
    try:
        return trusting(ca.read_text("ascii"), check_dates=check_dates)
    except (OSError, ValueError) as error:
        raise IdentityError(_("{ca} cannot be used: {reason}").format(ca=ca, reason=error)) from None


def trusting(roots: str, *, check_dates: bool) -> ssl.SSLContext:
    """A client context that trusts ``roots``, certificates in PEM, alone; checks the host's name too.

    Raises:
        ssl.SSLError: these are no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=roots)
    if not check_dates:
        context.verify_flags |= NO_CHECK_TIME
    return context


def believing_anybody() -> ssl.SSLContext:
    """A client context for what is public and checked in another way; nothing secret may be sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(url: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """A connection to the server at ``url``, opened by its first request."""
    address = urlsplit(url)
    return http.client.HTTPSConnection(
        address.hostname or "", address.port, timeout=TIMEOUT_S, context=context
    )


def ask(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: bytes | None,
    most: int,
    headers: Mapping[str, str] = _JSON,
) -> Reply:
    """Ask once, with ``headers`` where there is a ``body``; the answer, of at most ``most`` bytes.

    Raises:
        OSError, http.client.HTTPException: see :data:`FAILURES`.
    """
    deadline = time.monotonic() + ANSWER_S
    sent = {"User-Agent": AGENT, **(headers if body else {})}
    connection.request(method, path, body=body, headers=sent)
    with connection.getresponse() as response:
        content = bytearray()
        while chunk := response.read1(CHUNK):
            content += chunk
            if len(content) > most:
                raise http.client.HTTPException(_("the answer is too long"))
            if time.monotonic() > deadline:
                raise TimeoutError(_("the answer comes too slowly"))
        if response.length:
            raise ConnectionResetError(_("the connection broke within the answer"))
        return Reply(response.status, bytes(content))


def reason(error: Exception) -> str:
    """Why a server was not reached, in words; OpenSSL's own where a certificate was not accepted."""
    return getattr(error, "verify_message", "") or str(error) or type(error).__name__
