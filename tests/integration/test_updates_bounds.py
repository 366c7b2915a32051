"""Connections to the device listener that ask for nothing: they are ended, and nobody else is."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fleet_server.updates import bounds
from fleet_server.updates.bounds import BoundedProtocol
from tests.support.waiting import wait_until

HEAD_S = 0.5
ASK = b"GET /%s HTTP/1.1\r\nHost: updates\r\n\r\n"


async def _answer(request: Request) -> PlainTextResponse:
    if request.url.path == "/slow":
        await asyncio.sleep(3 * HEAD_S)
    return PlainTextResponse("here")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Where something answers behind the bounds of the device listener."""
    monkeypatch.setattr(bounds, "HEAD_S", HEAD_S)
    monkeypatch.setattr(bounds, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(bounds, "TOLD", 2)
    app = Starlette(routes=[Route("/{path}", _answer)])
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started, "it answers")
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def is_ended(connection: socket.socket, within_s: float = 10.0) -> bool:
    """Whether the other side ends it without a word."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.attack
@pytest.mark.parametrize("said", [b"", b"GET /x HTTP/1.1\r\nHost:"], ids=["silent", "half a request"])
def test_who_asks_for_nothing_is_let_go(address: tuple[str, int], said: bytes) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(said)
        assert is_ended(connection)


def test_who_asks_is_answered_again_and_again_and_then_let_go(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.settimeout(10)
        for path in (b"x", b"slow", b"x"):
            connection.sendall(ASK % path)
            answer = b""
            while not answer.endswith(b"here"):
                part = connection.recv(4096)
                assert part, "cut off in the middle of an answer"
                answer += part
        assert is_ended(connection)


@pytest.mark.attack
def test_more_than_there_is_room_for_are_cut_off_at_once(address: tuple[str, int]) -> None:
    held = [socket.create_connection(address) for _number in range(5)]
    try:
        with socket.create_connection(address) as one_more:
            assert is_ended(one_more, HEAD_S / 2)
        assert not is_ended(held[0], HEAD_S / 10)
    finally:
        for each in held:
            each.close()
