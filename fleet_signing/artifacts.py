"""What is published: a model's folder as one deterministic tar, a policy as its TOML; checked before.

The same folder gives the same bytes on every machine, so that an artifact is known by its digest.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_protocol import agent_build
from fleet_protocol import manifest as manifests
from fleet_protocol import policy as policies
from fleet_protocol.errors import ManifestError, PolicyError
from fleet_protocol.manifest import File, Manifest
from fleet_protocol.policy import CompiledPolicy, Policy
from fleet_protocol.targets import (
    MAX_ARTIFACT,
    Description,
    Kind,
    Target,
    describe_model,
    describe_policy,
    path_of,
)
from fleet_protocol.texts import _
from fleet_signing import agent_builds, archive
from fleet_signing.errors import ArtifactError

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact that was checked: its bytes, and the target that vouches for them."""

    target: Target
    content: bytes

    def parts(self, size: int) -> Iterator[bytes]:
        """The bytes, ``size`` of them at a time."""
        for start in range(0, len(self.content), size):
            yield self.content[start : start + size]


def of_model(folder: Path) -> Artifact:
    """The model in ``folder`` as an artifact.

    Raises:
        ArtifactError: its manifest does not parse, or a file is not the one that it names.
    """
    document = read(folder / MANIFEST)
    manifest = _parse(document)
    files = {entry.name: read(folder / entry.name) for entry in manifest.files}
    _require_same_names(manifest, set(files))
    for entry in manifest.files:
        _verify(entry, files[entry.name])
    return _artifact(describe_model(manifest), archive.pack(files | {MANIFEST: document}))


def of_policy(content: bytes, model: Manifest | None = None) -> Artifact:
    """The policy in ``content`` (TOML) as an artifact; compiled where its ``model`` is given.

    Raises:
        ArtifactError: it does not parse, or does not fit the model's answers.
    """
    try:
        policy = policies.parse(content)
        if model is not None:
            CompiledPolicy(policy, model)
    except PolicyError as error:
        raise ArtifactError(str(error)) from error
    return _artifact(describe_policy(policy), content)


def of_bytes(kind: Kind, content: bytes) -> Artifact:
    """The artifact of ``kind`` that ``content`` is, checked as if it was published here.

    Raises:
        ArtifactError: it is none, or not in the one form that the same content always has.
    """
    match kind:
        case Kind.POLICY:
            return of_policy(content)
        case Kind.MODEL:
            return _artifact(describe_model(read_model(content)), content)
        case Kind.AGENT:
            return _artifact(agent_build.describe(agent_builds.read(content)), content)
        case _:
            raise ArtifactError(
                _("this version cannot check an artifact of the kind {kind}").format(kind=kind)
            )


def read_model(content: bytes) -> Manifest:
    """The manifest of a model's tar; every file is verified.

    Raises:
        ArtifactError: it is no tar as :mod:`fleet_signing.archive` makes it, or a file is not the one
            that is named.
    """
    places = archive.places(content)
    if MANIFEST not in places:
        raise ArtifactError(_("the model's tar holds no {name}").format(name=MANIFEST))
    manifest = _parse(content[places.pop(MANIFEST)])
    _require_same_names(manifest, set(places))
    for entry in manifest.files:
        _verify(entry, content[places[entry.name]])
    return manifest


def read_policy(content: bytes) -> Policy:
    """The policy that ``content`` is; raises :class:`ArtifactError`."""
    try:
        return policies.parse(content)
    except PolicyError as error:
        raise ArtifactError(str(error)) from error


def _parse(document: bytes) -> Manifest:
    try:
        return manifests.parse(document)
    except ManifestError as error:
        raise ArtifactError(str(error)) from error


def _require_same_names(manifest: Manifest, found: set[str]) -> None:
    named = {entry.name for entry in manifest.files}
    if MANIFEST in named:
        raise ArtifactError(
            _("{model}: the manifest lists itself; take it out of its files").format(model=manifest.name)
        )
    for name in sorted(found ^ named):
        raise ArtifactError(
            _("{model}: {name!r} is in the manifest alone, or in the tar alone").format(
                model=manifest.name, name=name[:100]
            )
        )


def _verify(entry: File, content: bytes) -> None:
    try:
        manifests.verify_file(entry, content)
    except ManifestError as error:
        raise ArtifactError(str(error)) from error


def _artifact(description: Description, content: bytes) -> Artifact:
    if len(content) > MAX_ARTIFACT:
        raise ArtifactError(
            _("{name} has {size} bytes; at most {limit}").format(
                name=description.name, size=len(content), limit=MAX_ARTIFACT
            )
        )
    path = path_of(description)
    return Artifact(Target(path, len(content), hashlib.sha256(content).hexdigest(), description), content)


def read(path: Path) -> bytes:
    """The bytes of a file that is to be published; raises :class:`ArtifactError`."""
    try:
        if path.stat().st_size > MAX_ARTIFACT:
            raise ArtifactError(_("{path} is larger than an artifact may be").format(path=path))
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            _("{path} cannot be read: {reason}").format(path=path, reason=error.strerror or error)
        ) from error
