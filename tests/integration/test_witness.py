"""A broker that hangs up before it has been written to: what it said is told, not that a write failed."""

import asyncio
import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest

from edge_agent.link.witness import reporting_to
from tests.support.authority import Credentials, TestAuthority
from tests.support.waiting import wait_until


def _contexts(authority: TestAuthority, client: Credentials) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server that accepts nobody but its own fleet, and of a client."""
    server = authority.issue("server")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server.certificate, server.key)
    serving.load_verify_locations(authority.ca)
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=authority.ca)
    asking.load_cert_chain(client.certificate, client.key)
    return serving, asking


def _refuse(listener: socket.socket, context: ssl.SSLContext) -> None:
    raw, _address = listener.accept()
    with raw, contextlib.suppress(ssl.SSLError):
        context.wrap_socket(raw, server_side=True)


def _write_until_it_fails(link: ssl.SSLSocket) -> bool:
    try:
        link.send(b"CONNECT")
    except OSError:
        return True
    return False


@pytest.mark.attack
def test_the_alert_is_told_although_it_came_before_the_first_packet(tmp_path: Path) -> None:
    foreign = TestAuthority(tmp_path / "foreign", "another fleet").issue("gw-1")
    serving, asking = _contexts(TestAuthority(tmp_path / "own"), foreign)

    async def attempt() -> BaseException | None:
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asking.sslsocket_class = reporting_to(failure)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            refusing = threading.Thread(target=_refuse, args=(listener, serving))
            refusing.start()
            with (
                socket.create_connection(listener.getsockname()) as raw,
                asking.wrap_socket(raw, server_hostname="localhost") as link,
            ):
                refusing.join()
                wait_until(lambda: _write_until_it_fails(link), "a write fails")
                await asyncio.wait([failure])
                return failure.exception()

    reason = asyncio.run(attempt())
    assert isinstance(reason, ssl.SSLError)
    assert "ALERT" in reason.reason
