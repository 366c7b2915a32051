"""Both repositories in memory, with every key at hand, and python-tuf's own client over them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import FetcherInterface, Updater

from fleet_protocol.targets import Target, role_of
from fleet_signing import artifacts, ceremony, director, image
from fleet_signing.artifacts import Artifact
from fleet_signing.metadata import encode, file_name, now

IMAGE = "image"

_POLICY = """
format = 1
name = "leak"
version = "{release}"
release = {release}
model = "pressure_leak"
actuates = {actuates}

[[rules]]
name = "leak"
when = "score > 0.9"
outcome = "event"
text = "Likely leak"
"""


def policy(release: int = 1, *, actuates: bool = False) -> Artifact:
    """A policy ``leak`` for the model ``pressure_leak``."""
    text = _POLICY.format(release=release, actuates=str(actuates).lower())
    return artifacts.of_policy(text.encode())


class Repositories:
    """An image repository and a director with all their keys; ``files`` is what a server would serve.

    Paths are as in the URLs: ``image/metadata/timestamp.json``, ``image/targets/models/…``,
    ``director/<device>/metadata/…``.
    """

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or now()
        self.offline = ceremony.OfflineKeys.generate()
        self.online = ceremony.OnlineKeys.generate()
        self.roles: dict[str, Metadata[Targets]] = {}
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self._snapshot = 0
        self.take(ceremony.hold(self.offline, self.online.public, self.at))

    @property
    def image_root(self) -> bytes:
        return encode(self.bundle.image_roots[0])

    @property
    def director_root(self) -> bytes:
        return encode(self.bundle.director_roots[0])

    @property
    def current(self) -> ceremony.Bundle:
        """Everything that was signed offline, as a server would tell it to the next ceremony."""
        return ceremony.Bundle(self.bundle.image_roots, self.bundle.director_roots, self.roles)

    def hold(self, offline: ceremony.OfflineKeys, online: ceremony.OnlineKeys | None = None) -> None:
        """Hold the ceremony again, with these keys, and serve what comes of it."""
        self.offline, self.online = offline, online or self.online
        self.take(ceremony.hold(self.offline, self.online.public, self.at, self.current))

    def take(self, bundle: ceremony.Bundle) -> None:
        """Serve what a ceremony has given."""
        self.bundle = bundle
        self.roles |= bundle.roles
        for root in bundle.image_roots:
            self.files[f"image/metadata/{root.signed.version}.root.json"] = encode(root)
        self.release()

    def publish(self, artifact: Artifact, *signers: Signer) -> Target:
        """Vouch for ``artifact`` with the keys of its role, or other ones, and serve it."""
        role = role_of(artifact.target.description)
        keys = signers or self.offline.roles[role]
        self.roles[role] = image.add(self.roles[role], artifact.target, keys, self.at)
        self.files[f"image/targets/{image.served_path(artifact.target)}"] = artifact.content
        self.release()
        return artifact.target

    def release(self) -> None:
        """Sign which versions are the current ones, with the online key."""
        offline = {role: encode(metadata) for role, metadata in self.roles.items()}
        for role, metadata in self.roles.items():
            self.files[f"image/metadata/{file_name(role, metadata.signed.version)}"] = offline[role]
        snapshot = image.snapshot(offline, self._snapshot, self.at, self.online.image)
        content, version = encode(snapshot), snapshot.signed.version
        self.files[f"image/metadata/{file_name('snapshot', version)}"] = content
        timestamp = image.timestamp(version, content, self._snapshot, self.at, self.online.image)
        self.files["image/metadata/timestamp.json"] = encode(timestamp)
        self._snapshot = version

    def direct(
        self, device: str, *targets: Target, version: int | None = None, signer: Signer | None = None
    ) -> director.DirectorSet:
        """Say what ``device`` shall have; nothing without ``targets``."""
        number = version or self.versions.get(device, 0) + 1
        self.versions[device] = number
        signed = director.sign_set(device, targets, number, self.at, signer or self.online.director)
        for root in self.bundle.director_roots:
            self.files[f"director/{device}/metadata/{root.signed.version}.root.json"] = encode(root)
        for name, content in signed.files.items():
            self.files[f"director/{device}/metadata/{name}"] = content
        return signed

    def write(self, folder: Path) -> None:
        """Lay all files out under ``folder``."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class MemoryFetcher(FetcherInterface):
    """What python-tuf fetches with, over a mapping of paths below ``memory:///``."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix("memory:///")
        self.asked.append(path)
        if path not in self.files:
            raise DownloadHTTPError("not there", 404)
        return iter([self.files[path]])


def client(folder: Path, files: Mapping[str, bytes], root: bytes, repository: str = IMAGE) -> Updater:
    """python-tuf's client, keeping its metadata in ``folder``, over ``image`` or ``director/<device>``."""
    metadata, downloads = folder / "metadata", folder / "targets"
    for each in (metadata, downloads):
        each.mkdir(parents=True, exist_ok=True)
    return Updater(
        str(metadata),
        f"memory:///{repository}/metadata/",
        str(downloads),
        f"memory:///{repository}/targets/",
        fetcher=MemoryFetcher(files),
        bootstrap=root,
    )
