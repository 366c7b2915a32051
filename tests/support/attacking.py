"""A device under attack by whoever holds the server or the line: what its tests share."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge_agent.clock import BUILD_MS
from edge_agent.updates.asking import ask
from edge_agent.updates.spoken import Said
from fleet_protocol.targets import Target
from fleet_signing import ceremony, image, keys
from fleet_signing.artifacts import Artifact
from fleet_signing.metadata import encode, seal
from tests.support.authority import TestAuthority
from tests.support.repositories import Repositories
from tests.support.update_server import UpdateServer
from tests.support.updating import (
    DEVICE,
    Yard,
    accepted,
    model_artifact,
)

NOW = dt.datetime.fromtimestamp(BUILD_MS / 1000, dt.UTC) + dt.timedelta(days=29)
MODEL = "models/autoencoder/{}.tar"
FAR = 2_000_000_000
"""A version that no clock reaches for years."""


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    """A device that has accepted release 1 and is ordered to take it."""
    yard = Yard(tmp_path, authority, repositories=Repositories(NOW))
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as server:
        yard.server = server
        yard.order(model_artifact(1))
        assert accepted(yard.look()) == [MODEL.format(1)]
        yield yard


def child(yard: Yard) -> list[Said]:
    """A look by the child, as the agent starts it."""
    said: list[Said] = []
    asyncio.run(ask(yard.ask(), said.append))
    return said


def the(yard: Yard, start: str, end: str) -> str:
    """The newest metadata whose path begins and ends so."""
    found = [path for path in yard.repositories.files if path.startswith(start) and path.endswith(end)]
    return max(found, key=lambda path: int(path.rsplit("/", 1)[1].split(".")[0]))


def served(artifact: Artifact) -> str:
    """Where an artifact lies."""
    return f"image/targets/{image.served_path(artifact.target)}"


def put_back(yard: Yard, before: dict[str, bytes], start: str) -> None:
    """Serve again what was served before."""
    yard.repositories.files.update({path: each for path, each in before.items() if path.startswith(start)})


def otherwise(artifact: Artifact, **changes: object) -> Target:
    """The target of ``artifact``, told differently."""
    return replace(artifact.target, **changes)  # type: ignore[arg-type]


def described(artifact: Artifact, **changes: object) -> Artifact:
    description = msgspec.structs.replace(artifact.target.description, **changes)
    return Artifact(otherwise(artifact, description=description), artifact.content)


def give_anothers(yard: Yard, other: str) -> None:
    """Serve the director's word for another device under this one's address."""
    files = yard.repositories.files
    for path in [path for path in files if path.startswith(f"director/{other}/")]:
        files[path.replace(other, DEVICE)] = files[path]


def root_of(yard: Yard, version: int, *signers: keys.CryptoSigner) -> bytes:
    strangers = ceremony.OfflineKeys.generate()
    root = ceremony.hold(strangers, yard.repositories.online.public, NOW).image_roots[-1].signed
    root.version = version
    return encode(seal(root, [*strangers.root, *signers]))


def rotate(yard: Yard) -> None:
    """New keys for the server, by the ceremony."""
    repositories = yard.repositories
    online = ceremony.OnlineKeys.generate()
    so_far = replace(repositories.bundle, roles=repositories.roles)
    renewed = ceremony.hold(repositories.offline, online.public, NOW, so_far)
    repositories.online, repositories.bundle = online, renewed
    repositories.roles |= renewed.roles
    repositories.files["image/metadata/2.root.json"] = encode(renewed.image_roots[-1])
