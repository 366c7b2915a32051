"""A small inference server of the Open Inference Protocol, which can also be slow, wrong or endless."""

import json
import math
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fleet_protocol import central
from tests.support.central import expected

HEAD = "Inference-Header-Content-Length"


class OipServer:
    """Serves one central model of :mod:`tests.support.central`, computed in Python.

    ``misbehave``, where given, answers instead; ``held`` is waited for before an answer.
    """

    def __init__(self, manifest: central.CentralManifest) -> None:
        self.manifest = manifest
        self.asked = 0
        self.held = threading.Event()
        self.held.set()
        self.misbehave: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.url = ""

    def described(self) -> dict[str, Any]:
        shape = list(self.manifest.shape)
        inputs = [{"name": name, "datatype": "FP32", "shape": shape} for name in ("readings", "mask")]
        labels = [1, len(self.manifest.labels)]
        output = {"name": "probabilities", "datatype": "FP32", "shape": labels}
        return {"name": self.manifest.name, "versions": ["7"], "inputs": inputs, "outputs": [output]}

    def answer(self, body: bytes, head: int) -> tuple[int, bytes, int]:
        """Status, content and the length of its head."""
        described, tensors, place = json.loads(body[:head]), {}, head
        for one in described["inputs"]:
            size = one["parameters"]["binary_data_size"]
            if one["shape"] != list(self.manifest.shape) or size != 4 * math.prod(one["shape"]):
                return 400, b'{"error": "unexpected shape"}', 0
            tensors[one["name"]] = array("f", body[place : place + size])
            place += size
        if set(tensors) != {"readings", "mask"}:
            return 400, b'{"error": "readings and mask are needed"}', 0
        numbers = array("f", expected(self._means(tensors)))
        output = {"name": "probabilities", "datatype": "FP32", "shape": [1, len(numbers)]}
        output["parameters"] = {"binary_data_size": 4 * len(numbers)}
        content = json.dumps({"model_name": self.manifest.name, "outputs": [output]}).encode()
        return 200, content + numbers.tobytes(), len(content)

    def _means(self, tensors: dict[str, Any]) -> list[float]:
        _one, gateways, metrics, steps = self.manifest.shape
        means = []
        for gateway in range(gateways):
            start = gateway * metrics * steps
            values, mask = (tensors[name][start : start + steps] for name in ("readings", "mask"))
            means.append(sum(map(lambda v, m: v * m, values, mask)) / max(sum(mask), 1.0))
        return means


@contextmanager
def serving(manifest: central.CentralManifest, port: int = 0) -> Iterator[OipServer]:
    """A running server."""
    server = OipServer(manifest)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = self.path == f"/v2/models/{manifest.name}"
            content = json.dumps(server.described() if known else {"error": "unknown model"}).encode()
            self._send(200 if known else 404, content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.asked += 1
            server.held.wait(20)
            if server.misbehave is not None:
                server.misbehave(self)
            elif self.path != f"/v2/models/{manifest.name}/infer":
                self._send(404, b'{"error": "unknown model"}')
            else:
                self._send(*server.answer(body, int(self.headers[HEAD])))

        def _send(self, status: int, content: bytes, head: int = 0) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if head:
                self.send_header(HEAD, str(head))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: Any) -> None:
            """A client that gave up is no news."""

    with Quiet(("127.0.0.1", port), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield server
        finally:
            server.held.set()
            http.shutdown()
            thread.join()
