"""What is published: a model's folder as one deterministic tar, a policy as its TOML; checked before.

The same folder gives the same bytes on every machine, so that an artifact is known by its digest.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_protocol import manifest as manifests
from fleet_protocol import policy as policies
from fleet_protocol.errors import ManifestError, PolicyError, ProtocolError
from fleet_protocol.manifest import Manifest
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
from fleet_signing.errors import ArtifactError

MANIFEST: Final = "manifest.json"

_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact that was checked: its bytes, and the target that vouches for them."""

    target: Target
    content: bytes


def of_model(folder: Path) -> Artifact:
    """The model in ``folder`` as an artifact.

    Raises:
        ArtifactError: its manifest does not parse, or a file is not the one that it names.
    """
    try:
        document = _read(folder / MANIFEST)
        manifest = manifests.parse(document)
        files = {entry.name: _read(folder / entry.name) for entry in manifest.files}
    except ProtocolError as error:
        raise ArtifactError(_("{folder}: {reason}").format(folder=folder, reason=error)) from error
    _verify(manifest, files)
    return _artifact(describe_model(manifest), pack(document, files))


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
    if kind is Kind.POLICY:
        return of_policy(content)
    manifest, _document = read_model(content)
    return _artifact(describe_model(manifest), content)


def read_model(content: bytes) -> tuple[Manifest, bytes]:
    """The manifest of a model's tar, parsed and as it is written; every file is verified.

    Raises:
        ArtifactError: it is no tar as :func:`pack` makes it, or a file is not the one that is named.
    """
    files = _unpack(content)
    document = files.pop(MANIFEST, None)
    if document is None:
        raise ArtifactError(_("the model's tar holds no {name}").format(name=MANIFEST))
    try:
        manifest = manifests.parse(document)
    except ManifestError as error:
        raise ArtifactError(str(error)) from error
    _verify(manifest, files)
    if pack(document, files) != content:
        raise ArtifactError(_("the model's tar is not in the one form; make it with 'fleet publish model'"))
    return manifest, document


def read_policy(content: bytes) -> Policy:
    """The policy that ``content`` is; raises :class:`ArtifactError`."""
    try:
        return policies.parse(content)
    except PolicyError as error:
        raise ArtifactError(str(error)) from error


def pack(document: bytes, files: dict[str, bytes]) -> bytes:
    """A model's tar: flat, sorted by name, with no time, owner or right that differs between machines."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted((files | {MANIFEST: document}).items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), _MODE
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return {
                entry.name: file.read()
                for entry in tar
                if entry.isreg() and (file := tar.extractfile(entry)) is not None
            }
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ArtifactError(_("the model's tar cannot be read: {reason}").format(reason=error)) from error


def _verify(manifest: Manifest, files: dict[str, bytes]) -> None:
    named = {entry.name for entry in manifest.files}
    if MANIFEST in named:
        raise ArtifactError(
            _("{model}: the manifest lists itself; take it out of its files").format(model=manifest.name)
        )
    if stray := sorted(files.keys() - named):
        raise ArtifactError(
            _("{model}: {name!r} is not in the manifest").format(model=manifest.name, name=stray[0][:100])
        )
    for entry in manifest.files:
        try:
            manifests.verify_file(entry, files.get(entry.name, b""))
        except ManifestError as error:
            raise ArtifactError(str(error)) from error


def _artifact(description: Description, content: bytes) -> Artifact:
    if len(content) > MAX_ARTIFACT:
        raise ArtifactError(
            _("{name} has {size} bytes; at most {limit}").format(
                name=description.name, size=len(content), limit=MAX_ARTIFACT
            )
        )
    path = path_of(description.kind, description.name, description.release)
    return Artifact(Target(path, len(content), hashlib.sha256(content).hexdigest(), description), content)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_ARTIFACT:
            raise ArtifactError(_("{path} is larger than an artifact may be").format(path=path))
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            _("{path} cannot be read: {reason}").format(path=path, reason=error.strerror or error)
        ) from error
