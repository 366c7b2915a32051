"""A central model's folder on disk: its manifest, and its files checked against it."""

from dataclasses import dataclass
from pathlib import Path

from fleet_protocol import central
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import MAX_MANIFEST, verify_file
from fleet_protocol.texts import _
from fleet_server.errors import BackendDown


@dataclass(frozen=True, slots=True)
class CentralFolder:
    """A folder whose manifest parses."""

    path: Path
    manifest: central.CentralManifest

    def verified(self) -> Path:
        """The model's main file, after every file was checked.

        Raises:
            BackendDown: one is missing, unreadable, or not the one that the manifest names.
        """
        for entry in self.manifest.files:
            try:
                verify_file(entry, _read(self.path / entry.name, entry.size))
            except ProtocolError as error:
                raise BackendDown(f"{self.path}: {error}") from None
        return self.path / self.manifest.file


def open_folder(path: Path) -> CentralFolder:
    """The central model in ``path``.

    Raises:
        BackendDown: no readable manifest, or one that contradicts itself.
    """
    content = _read(path / central.FILE_NAME, MAX_MANIFEST)
    try:
        manifest = central.parse(content)
    except ProtocolError as error:
        raise BackendDown(f"{path}: {error}") from None
    return CentralFolder(path, manifest)


def _read(path: Path, limit: int) -> bytes:
    """At most one byte more than ``limit``, so that what is too long is seen and never read whole."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise BackendDown(
            _("{path} cannot be read ({reason}); give a central model's folder with --central-model").format(
                path=path, reason=error.strerror
            )
        ) from None
