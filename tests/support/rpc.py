"""A client of the agent's local socket, as plain as can be."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def talking(folder: Path, timeout_s: float = 30.0) -> Iterator["Talk"]:
    """A connection to the socket in ``folder``, whose name may be too long for a socket's address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        handle = os.open(folder, os.O_RDONLY)
        try:
            connection.connect(f"/proc/self/fd/{handle}/agent.sock")
        finally:
            os.close(handle)
        with connection.makefile("rb") as lines:
            yield Talk(connection, lines)


class Talk:
    """One conversation."""

    def __init__(self, connection: socket.socket, lines: Any) -> None:
        self.connection = connection
        self._lines = lines

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def line(self) -> Any:
        """The next answer; None where the other side has hung up."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def ask(self, method: str, **params: Any) -> Any:
        """The whole answer to one request."""
        request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        self.send(json.dumps(request).encode() + b"\n")
        return self.line()

    def result(self, method: str, **params: Any) -> Any:
        answer = self.ask(method, **params)
        assert "result" in answer, answer
        return answer["result"]
