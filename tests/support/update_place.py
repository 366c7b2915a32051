"""A real server after a key ceremony: what publishes to it, and what a device sees of it."""

import http.client
import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
from securesystemslib.signer import Signer
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from fleet_protocol.manifest import Manifest, encode
from fleet_protocol.manifest import parse as parse_manifest
from fleet_protocol.targets import MAX_ARTIFACT
from fleet_signing import ceremony, image, keys
from fleet_signing.artifacts import Artifact
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import now, seal
from tests.support.device_post import DevicePost
from tests.support.fleet_server import ServerProcess, agreed, fleet

MODEL = Path("use_cases/water_network/models/pressure_leak")
PASSPHRASE = "correct horse battery"


class HttpsFetcher(FetcherInterface):
    """What python-tuf fetches with, over HTTPS with the fleet's authority alone."""

    def __init__(self, ca: str, token: str = "") -> None:
        self.context = ssl.create_default_context(cafile=ca)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        answer = httpx.get(url, headers=self.headers, verify=self.context, trust_env=False, timeout=30)
        if answer.status_code != 200:
            raise DownloadHTTPError(url, answer.status_code)
        return iter([answer.content])


class Place:
    """A running server after a key ceremony, the offline keys, and what a device sees of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.server = ServerProcess(folder / "data")

    def start(self) -> None:
        """Start it; a server that was killed has left its announcement behind."""
        (self.server.data / "endpoints.json").unlink(missing_ok=True)
        self.server.start()

    def fleet(self, *arguments: str | Path) -> str:
        done = fleet(*arguments, "--data", self.server.data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def agreed(self, *arguments: str | Path) -> str:
        """What a command says that asks for a change, which somebody else then approves."""
        return agreed(self.server.data, *arguments)

    def refused(self, *arguments: str | Path) -> str:
        done = fleet(*arguments, "--data", self.server.data)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def devices(self) -> httpx.Client:
        """HTTPS as a device speaks it."""
        context = ssl.create_default_context(cafile=self.server.endpoints["ca"])
        url = self.server.endpoints["device_url"] + "/v1/updates"
        return httpx.Client(base_url=url, verify=context, trust_env=False, timeout=30)

    def token(self, folder: Path) -> str:
        """The access token of the device that was added into ``folder``."""
        return DevicePost(self.server, folder).token()

    def client(self, repository: str, root: Path, folder: Path, token: str = "") -> Updater:
        """python-tuf's client on ``repository`` that pins ``root``."""
        url = f"{self.server.endpoints['device_url']}/v1/updates/{repository}"
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return Updater(
            str(folder / "metadata"),
            f"{url}/metadata/",
            str(folder / "targets"),
            f"{url}/targets/",
            fetcher=HttpsFetcher(self.server.endpoints["ca"], token),
            bootstrap=root.read_bytes(),
        )

    def signer(self, role: str) -> Signer:
        return keys.read(self.keys / f"{role}.key", PASSPHRASE).signer

    def published(self) -> Bundle:
        with self.server.client() as client:
            return ceremony.decode_bundle(client.get("/v1/updates/metadata").raise_for_status().content)

    def vouching(self, artifact: Artifact, *signers: Signer) -> bytes:
        """Metadata that vouches for ``artifact``, signed by ``signers``."""
        role = "models" if artifact.target.path.startswith("models/") else "policies"
        added = image.add(self.published().roles[role], artifact.target, [self.signer(role)], now())
        return ceremony.encode_bundle(Bundle((), (), {role: seal(added.signed, signers)}))


def model(folder: Path, name: str, release: int = 1) -> Path:
    """The folder of a model called ``name``."""
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    changed: Manifest = msgspec.structs.replace(manifest, name=name, release=release)
    (folder / "manifest.json").write_bytes(encode(changed))
    return folder


def put(place: Place, path: str, content: bytes, **headers: str) -> httpx.Response:
    with place.server.client() as client:
        return client.put(f"/v1/artifacts/{path}", content=content, headers=headers)


def post(place: Place, document: bytes, what: str = "metadata") -> httpx.Response:
    with place.server.client() as client:
        return client.post(f"/v1/updates/{what}", content=document, params={"reason": "a test"})


def listing(place: Place) -> list[str]:
    return sorted(path.name for path in (place.server.data / "updates" / "artifacts").glob("*"))


def endless() -> Iterator[bytes]:
    """More than an artifact may have, without saying so first."""
    for _part in range(MAX_ARTIFACT // (1024 * 1024) + 2):
        yield b"\0" * (1024 * 1024)


def announced(place: Place, size: int) -> int:
    """What is answered to an upload that says its size and has not begun."""
    url = httpx.URL(place.server.endpoints["api_url"])
    token = (place.server.data / "api.token").read_text().strip()
    context = ssl.create_default_context(cafile=place.server.endpoints["api_ca"])
    connection = http.client.HTTPSConnection(url.host, url.port or 443, timeout=30, context=context)
    try:
        connection.putrequest("PUT", "/v1/artifacts/models/x/1.tar")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def ready(folder: Path) -> Iterator[Place]:
    """A server of its own in ``folder`` after its key ceremony, with a device from before that."""
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    before = os.environ.get("ARGAN_PASSPHRASE_FILE")
    os.environ["ARGAN_PASSPHRASE_FILE"] = str(folder / "passphrase")
    place = Place(folder)
    try:
        place.start()
        place.fleet("device", "add", "gw-early", "--out", folder / "gw-early")
        request, bundle = folder / "request.json", folder / "ceremony.json"
        place.fleet("key", "export", "--out", request)
        done = fleet("key", "ceremony", "--request", request, "--keys", place.keys, "--out", bundle)
        assert done.returncode == 0, done.stderr
        place.fleet("key", "import", bundle)
        yield place
    finally:
        place.server.end()
        if before is None:
            del os.environ["ARGAN_PASSPHRASE_FILE"]
        else:
            os.environ["ARGAN_PASSPHRASE_FILE"] = before
