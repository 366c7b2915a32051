"""A small HTTPS server of update metadata and artifacts, with the faults that lines and thieves have."""

import hashlib
import http.server
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import parse_qs

from tests.support.authority import Credentials

PREFIX = "/v1/updates/"
TOKEN = "a-token"


class UpdateServer:
    """Serves ``files`` by path, with Range and ETag; may be told to misbehave.

    ``cuts``: after how many bytes of a body the connection is cut, answer by answer, for bodies of at
    least ``cut_from`` bytes. ``pieces``: bodies of at least that size go out so many bytes at a time, with
    so many seconds between; ``sent`` counts their bytes. ``forgets``: nothing can be gone on with.
    ``longer``: bytes sent beyond the file. ``asked``: every request so far.
    Tokens are given to whoever asks; ``proved``: what was signed for each. ``private``: nothing of the
    director is given without one. ``shown``: every path with what was shown for it. ``endless``: paths
    that never end. ``drip_s``: paths that come byte by byte, so many seconds apart.
    """

    def __init__(self, credentials: Credentials, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.cuts: deque[int] = deque()
        self.cut_from = 20_000
        self.longer = 0
        self.pieces: tuple[int, float] | None = None
        self.sent = 0
        self.forgets = False
        self.honest_length = True
        self.endless: set[str] = set()
        self.drip_s: dict[str, float] = {}
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self.connections = 0
        self.proved: list[str] = []
        self.private = False
        self.shown: list[tuple[str, str]] = []
        self.closing = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials.certificate, credentials.key)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}/v1/updates"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges(self, ending: str) -> list[str]:
        """The Range headers with which files were asked for whose path ends so."""
        return [asked for path, asked in self.asked if path.endswith(ending)]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


def _handler(of: UpdateServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(_Handler):
        served = of

    return Handler


class _Handler(http.server.BaseHTTPRequestHandler):
    served: UpdateServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 10

    def setup(self) -> None:
        super().setup()
        self.served.connections += 1

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        served = self.served
        path = self.path.removeprefix(PREFIX)
        served.asked.append((path, self.headers.get("Range", "")))
        content = served.files.get(path)
        if not self._may_see(path):
            self._answer(401, b"no", {})
            return
        if path in served.status or content is None:
            self._answer(served.status.get(path, 404), b"no", {})
            return
        if path in served.endless or path in served.drip_s:
            self._torment(path, content)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = self._start(etag, len(content))
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:] + bytes(served.longer), headers)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match self.path:
            case "/v1/device/nonce":
                answer: dict[str, object] = {"nonce": "n", "now_ms": time.time_ns() // 1_000_000}
            case "/v1/device/token":
                self.served.proved.append(parse_qs(sent)["assertion"][0])
                answer = {"access_token": TOKEN, "token_type": "Bearer"}
            case _:
                self._answer(404, b"no", {})
                return
        self._answer(200, json.dumps(answer).encode(), {})

    def _drip(self, body: bytes, size: int, seconds: float) -> None:
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            self.served.sent += size
            self.served.closing.wait(seconds)

    def _may_see(self, path: str) -> bool:
        served = self.served
        token = self.headers.get("Authorization", "")
        served.shown.append((path, token))
        return token == f"Bearer {TOKEN}" or not (served.private and path.startswith("director/"))

    def _torment(self, path: str, content: bytes) -> None:
        """Go on for as long as the client listens."""
        self.close_connection = True
        self.send_response(200)
        pieces = iter(lambda: bytes(65536), b"")
        if pause := self.served.drip_s.get(path, 0.0):
            self.send_header("Content-Length", str(len(content)))
            pieces = (content[place : place + 1] for place in range(len(content)))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            time.sleep(pause)

    def _start(self, etag: str, size: int) -> int:
        asked = "" if self.served.forgets else self.headers.get("Range", "")
        if not asked or self.headers.get("If-Range", etag) != etag:
            return 0
        start = int(asked.removeprefix("bytes=").split("-")[0])
        return start if start < size else 0

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        served = self.served
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if served.honest_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if len(body) >= served.cut_from and served.cuts:
            self.wfile.write(body[: served.cuts.popleft()])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        if len(body) >= served.cut_from and served.pieces:
            self._drip(body, *served.pieces)
            return
        self.wfile.write(body)
