"""One device, its two repositories and an update server: what tests of updates stand on."""

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec

from edge_agent.clock import BUILD_MS
from edge_agent.pipeline.vitals import Vitals
from edge_agent.updates.look import look
from edge_agent.updates.spoken import Accepted, Ask, Refused, Said
from fleet_protocol import manifest as mf
from fleet_protocol.targets import Target
from fleet_signing.artifacts import Artifact, of_model, of_policy
from tests.support import models
from tests.support.authority import TestAuthority
from tests.support.repositories import Repositories
from tests.support.update_server import UpdateServer

DEVICE = "gw-7"
DAY_MS = 86_400_000


@cache
def _autoencoder() -> Path:
    return models.autoencoder(Path(mkdtemp()) / "autoencoder")


def model_folder(
    folder: Path, release: int, change: Callable[[mf.Manifest], mf.Manifest] | None = None
) -> Path:
    """The folder of the autoencoder in another release."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in _autoencoder().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    models.rewrite(
        folder, lambda each: msgspec.structs.replace(each, release=release, version=f"1.{release}")
    )
    if change is not None:
        models.rewrite(folder, change)
    return folder


def model_artifact(
    release: int, change: Callable[[mf.Manifest], mf.Manifest] | None = None, **files: bytes
) -> Artifact:
    """The autoencoder as an artifact; ``files`` replace files of it by their stem."""
    folder = model_folder(Path(mkdtemp()) / "model", release, change)
    for stem, content in files.items():
        (name,) = (file.name for file in folder.iterdir() if file.stem == stem)
        models.replace_file(folder, name, content)
    return of_model(folder)


def policy_artifact(
    release: int, when: str = "score >= 0.0", name: str = "watch", *, actuates: bool = False, **rule: Any
) -> Artifact:
    """A policy of one rule for the autoencoder."""
    more = "".join(f"{key} = {value!r}\n" for key, value in rule.items())
    return of_policy(
        f"""\
format = 1
name = "{name}"
version = "1.{release}"
release = {release}
model = "autoencoder"
actuates = {str(actuates).lower()}
[[rules]]
name = "rule"
when = "{when}"
outcome = "event"
text = "a rule holds"
{more}""".encode()
    )


def without_encoder() -> bytes:
    """The autoencoder's file with wrong weights: it fails its golden inputs."""
    return models.without_first_layer((_autoencoder() / "model.tflite").read_bytes())


@dataclass
class Yard:
    """A device's folder of updates, and where it looks."""

    folder: Path
    authority: TestAuthority
    device: str = DEVICE
    repositories: Repositories = field(default_factory=Repositories)
    server: UpdateServer | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.image_root.write_bytes(self.repositories.image_root)
        self.director_root.write_bytes(self.repositories.director_root)

    @property
    def image_root(self) -> Path:
        return self.folder / "image-root.json"

    @property
    def director_root(self) -> Path:
        return self.folder / "director-root.json"

    @property
    def updates(self) -> Path:
        return self.folder / "data" / "updates"

    def order(self, *artifacts: Artifact) -> list[Target]:
        """Publish what is not published yet, and have the director order it."""
        for artifact in artifacts:
            if not any(artifact.target.sha256 in path for path in self.repositories.files):
                self.repositories.publish(artifact)
        targets = [artifact.target for artifact in artifacts]
        self.repositories.direct(self.device, *targets)
        return targets

    def ask(self, **changes: Any) -> Ask:
        asked = Ask(
            device=self.device,
            folder=str(self.updates),
            image_root=str(self.image_root),
            director_root=str(self.director_root),
            url=self.server.url if self.server else "",
            ca=str(self.authority.ca),
            now_ms=BUILD_MS + 30 * DAY_MS,
            profile="simulated",
        )
        return msgspec.structs.replace(asked, **changes)

    def look(self, **changes: Any) -> list[Said]:
        """Look as the child does, in this process."""
        self.updates.mkdir(parents=True, exist_ok=True)
        said: list[Said] = []
        look(self.ask(**changes), said.append)
        return said

    def bundle(self, file: Path) -> Path:
        return write_bundle(file, self.repositories.files)


def write_bundle(file: Path, files: Mapping[str, bytes]) -> Path:
    """A bundle on a stick with ``files``."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def accepted(said: list[Said]) -> list[str]:
    """The paths of what was accepted."""
    return [each.target.path for each in said if isinstance(each, Accepted)]


def refused(said: list[Said]) -> list[tuple[str, str]]:
    """Class and scope of every refusal."""
    return [(each.refusal.value, each.scope) for each in said if isinstance(each, Refused)]


def calm(answers: int = 100, **counts: int) -> Vitals:
    """The vitals of a version that does well."""
    return Vitals(answers=answers, latencies_us=(1000,) * min(answers, 64), **counts)
