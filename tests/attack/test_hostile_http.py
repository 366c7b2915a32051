"""Bytes that no HTTP client sends, at both HTTPS listeners of a real server: none of them makes it fail."""

import itertools
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.fleet_server import ServerProcess
from tests.support.ledger import Tried

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
    "an absolute path": b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a web socket": (
        b"GET /v1/devices HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
}

OUT = (
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "%252e%252e%252f",
    "..%5c",
    "....//",
    "..;/",
    "%c0%ae%c0%ae/",
    "/",
)
"""Ways to say the folder above, or the root of all."""

DEPTHS = (1, 3, 6)
SECRETS = ("api.token", "device/token.key", "authority/authority.json", "etc/passwd", "%00api.token")
PLACES = {
    "device_url": (
        "GET /v1/updates/image/metadata/", "GET /v1/updates/image/targets/",
        "GET /v1/updates/image/targets/models/", "GET /v1/updates/director/gw-1/metadata/",
    ),
    "api_url": ("PUT /v1/artifacts/", "PUT /v1/artifacts/models/", "GET /v1/updates/bundles/"),
}  # fmt: skip
"""What takes a name out of an address, or what is near a file."""

MARKER = b"brought in by the attack"

TOO_MUCH = [
    ("api_url", "POST /v1/session", 65_536),
    ("api_url", "POST /v1/devices", 65_536),
    ("api_url", "POST /v1/updates/metadata", 16 * 1024 * 1024),
    ("api_url", "PUT /v1/artifacts/models/m/1.tar", 256 * 1024 * 1024),
    ("device_url", "POST /v1/device/token", 32_768),
    ("device_url", "POST /v1/enrollment", 32_768),
    ("device_url", "POST /v1/enrollment/claims", 32_768),
]
"""What takes a body, and how many bytes of it."""


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


def said_in_turn(server: ServerProcess, listener: str, request: bytes) -> bytes:
    """The first bytes of the answer to ``request``, asked again for as long as it comes too often."""
    while (answer := said(server, listener, request)).startswith(b"HTTP/1.1 429 "):
        pause = re.search(rb"(?i)\r\nRetry-After: (\d+)\r\n", answer)
        assert pause is not None, answer
        time.sleep(int(pause[1]))
    return answer


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


@pytest.mark.parametrize("listener", PLACES)
def test_no_name_leads_out_of_its_folder(server: ServerProcess, tried: Tried, listener: str) -> None:
    token = (server.data / "api.token").read_text().strip()
    secrets = [token.encode(), (server.data / "device" / "token.key").read_bytes(), b"root:"]
    before = {path for path in server.data.parent.rglob("*") if server.data not in path.parents}
    for place, way, depth, secret in itertools.product(PLACES[listener], OUT, DEPTHS, SECRETS):
        head = f"{place}{way * depth}{secret} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        request = head + f"Content-Length: {len(MARKER)}\r\nConnection: close\r\n\r\n"
        answer = said_in_turn(server, listener, request.encode() + MARKER)
        status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
        assert status is not None, (head, answer[:80])
        assert 400 <= int(status[1]) < 500, (head, answer[:80])
        assert not any(each in answer for each in secrets), head
        tried(1)
    assert {path for path in server.data.parent.rglob("*") if server.data not in path.parents} == before
    kept = [
        path for path in server.data.rglob("*") if path.is_file() and path.suffix not in {".db", ".db-wal"}
    ]
    assert not [path for path in kept if MARKER in path.read_bytes()]


@pytest.mark.parametrize(("listener", "asked", "most"), TOO_MUCH)
def test_more_than_may_be_sent_is_refused(
    server: ServerProcess, tried: Tried, listener: str, asked: str, most: int
) -> None:
    token = (server.data / "api.token").read_text().strip()
    head = f"{asked} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    if listener == "api_url":
        # Refused before any of it is sent.
        answer = said(server, listener, f"{head}Content-Length: {most + 1}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        tried(1)
    if most < 1_000_000:
        chunk = f"{most + 1:x}\r\n".encode() + b"x" * (most + 1) + b"\r\n0\r\n\r\n"
        answer = said(server, listener, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk)
        # OAuth knows one status for a request that is not as it should be; nothing, where it hung up first.
        refusals = (b"HTTP/1.1 413 ", b"HTTP/1.1 400 ") if asked.endswith("/token") else (b"HTTP/1.1 413 ",)
        assert not answer or answer.startswith(refusals), answer[:200]
        tried(1)


# The last one: it uses up what this address may ask of enrollment.
def test_nobody_gets_another_address_by_a_header(devices: httpx.Client) -> None:
    """Each address would have a budget of its own."""
    codes = [
        devices.get("/v1/enrollment/ca", headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code
        for n in range(150)
    ]
    assert 429 in codes
