"""A model's folder on disk: its manifest, and its files checked against it. Imports no runtime."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.errors import ModelRefused
from fleet_protocol import manifest as mf
from fleet_protocol.errors import ManifestError
from fleet_protocol.texts import _

MAX_FILE: Final = 1 << 30
"""Bytes; a model that an edge board can run is smaller, and the file is read into memory whole."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model folder whose manifest parses. Files are checked each time they are read."""

    folder: Path
    manifest: mf.Manifest
    digest: str
    """SHA-256 of ``manifest.json`` in hex; it names the files' digests, so it stands for all of them."""

    def read(self, name: str) -> bytes:
        """The content of the file ``name``, which is what the manifest says.

        Raises:
            ModelRefused: missing, unreadable, too long, or changed.
        """
        try:
            entry = self.manifest.file(name)
            content = _read(self.folder / name, min(entry.size, MAX_FILE))
            mf.verify_file(entry, content)
        except ManifestError as error:
            raise ModelRefused(f"{self.manifest.name}: {error}") from None
        return content


def read_bundle(folder: Path) -> Bundle:
    """The bundle in ``folder``.

    Raises:
        ModelRefused: no readable manifest, or one that contradicts itself.
    """
    content = _read(folder / "manifest.json", mf.MAX_MANIFEST)
    try:
        manifest = mf.parse(content)
    except ManifestError as error:
        raise ModelRefused(f"{folder}: {error}") from None
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest())


def _read(path: Path, limit: int) -> bytes:
    """At most one byte more than ``limit``, so that what is too long is seen and never read whole."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ModelRefused(
            _("{path} cannot be read ({reason}); deliver the model again").format(
                path=path, reason=error.strerror
            )
        ) from None
