"""Somebody between a device and its server: answers on TLS, and writes down what was told to him."""

import http.server
import ssl
import threading
from pathlib import Path
from typing import Any, Self


class Impostor:
    """Shows ``certificate``, gives out ``ca`` as the fleet's authority, and refuses nothing.

    ``heard`` is every request that came through: method, path and body.
    """

    def __init__(self, certificate: Path, key: Path, ca: bytes) -> None:
        self.ca = ca
        self.heard: list[tuple[str, str, bytes]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(impostor: Impostor) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"", impostor.ca)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])), b"{}")

        def _answer(self, body: bytes, content: bytes) -> None:
            impostor.heard.append((self.command, self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            try:
                super().handle()
            except (ssl.SSLError, OSError):
                return  # the device hung up: it has noticed

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    return Handler
