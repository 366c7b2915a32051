"""Bytes that no HTTP client sends, at both HTTPS listeners of a real server: none of them makes it fail."""

import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.fleet_server import ServerProcess

pytestmark = pytest.mark.attack

ANSWER_S = 15.0

REQUESTS = {
    "no request at all": b"\x00\xff\xfe garbage \r\n\r\n",
    "a method that is none": b"STEAL /v1/devices HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a version that is none": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "thousands of headers": b"GET / HTTP/1.1\r\n"
    + b"".join(b"X%d: y\r\n" % n for n in range(20_000))
    + b"\r\n",
    "a path without end": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length that is none": b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET / HTTP/1.1\r\n"
    ),
    "a chunk that is none": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "a null in the path": b"GET /v1/devices/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a line feed in a header": b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\nX: b\r\n\r\n",
    "bytes that are no text": b"GET /v1/devices/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a way out of the folder": b"GET /v1/updates/image/metadata/..%2fapi.token HTTP/1.1\r\nHost: x\r\n\r\n",
    "a way out, twice encoded": b"GET /v1/updates/image/targets/%252e%252e%252fa HTTP/1.1\r\nHost: x\r\n\r\n",
    "a way out, plainly": b"GET /v1/updates/image/targets/../../../../api.token HTTP/1.1\r\nHost: x\r\n\r\n",
    "an absolute path": b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a web socket": (
        b"GET /v1/devices HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
    server.start()
    yield server
    server.end()


def said(server: ServerProcess, listener: str, request: bytes) -> bytes:
    """The first bytes of the answer to ``request``; none where the server hangs up."""
    url = httpx.URL(server.endpoints[listener])
    context = ssl.create_default_context(cafile=server.endpoints["ca"])
    with (
        socket.create_connection((url.host, url.port or 443), ANSWER_S) as raw,
        context.wrap_socket(raw, server_hostname=url.host) as link,
    ):
        try:
            link.sendall(request)
            return link.recv(4096)
        except (ConnectionError, ssl.SSLError):
            return b""


@pytest.mark.parametrize("listener", ["api_url", "device_url"])
@pytest.mark.parametrize("name", REQUESTS)
def test_what_no_client_sends_is_refused(server: ServerProcess, listener: str, name: str) -> None:
    answer = said(server, listener, REQUESTS[name])
    status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    assert not answer or status is not None, answer[:80]
    assert status is None or 400 <= int(status[1]) < 500, answer[:200]
    assert server.get("/v1/health")["status"] != ""


@pytest.mark.parametrize("listener", ["api_url", "device_url"])
def test_neither_listener_speaks_in_the_clear(server: ServerProcess, listener: str) -> None:
    url = httpx.URL(server.endpoints[listener])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{url.host}:{url.port}/v1/health", timeout=ANSWER_S, trust_env=False)


@pytest.mark.parametrize("listener", ["api_url", "device_url"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_not_spoken(server: ServerProcess, listener: str, version: ssl.TLSVersion) -> None:
    url = httpx.URL(server.endpoints[listener])
    context = ssl.create_default_context(cafile=server.endpoints["ca"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((url.host, url.port or 443), ANSWER_S) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(raw, server_hostname=url.host)


@pytest.fixture
def devices(server: ServerProcess) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=server.endpoints["ca"])
    url = server.endpoints["device_url"]
    with httpx.Client(base_url=url, verify=context, trust_env=False, timeout=ANSWER_S) as client:
        yield client


def test_nobody_gets_another_address_by_a_header(devices: httpx.Client) -> None:
    """Each address would have a budget of its own."""
    codes = [
        devices.get("/v1/enrollment/ca", headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code
        for n in range(150)
    ]
    assert 429 in codes


@pytest.mark.parametrize("path", ["/v1/device/crl", "/v1/updates/image/metadata/1.root.json", "/nowhere"])
def test_devices_are_answered_within_bounds_too(devices: httpx.Client, path: str) -> None:
    answer = devices.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert devices.request("GET", path, content=b"x" * 65_537).status_code == 413


def test_the_data_folder_lets_nobody_else_in(server: ServerProcess, tmp_path: Path) -> None:
    """Keys, tokens, database: none of it can be read by another user of the machine."""
    private = [path for path in server.data.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    public = {"ca.pem", "cert.pem", "crl.pem"}
    assert {path.name for path in private} <= public, private
