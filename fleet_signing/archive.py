"""A model's folder, or a build's wheels, as one tar, in the one form that the same content always has. Pure.

Flat, sorted by name, plain files only, with no time, owner or right that differs between machines. It
is read by its own rules and not by a tar library's: what a library would forgive is refused here.
"""

import tarfile
from collections.abc import Mapping
from io import BytesIO
from typing import Final

from fleet_protocol.texts import _
from fleet_signing.errors import ArtifactError

MAX_FILES: Final = 65
"""A manifest names 64 files and is one itself."""

_MODE: Final = 0o644
_BLOCK: Final = tarfile.BLOCKSIZE


def pack(files: Mapping[str, bytes]) -> bytes:
    """``files``, by their plain names, as a tar."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            tar.addfile(_entry(name, len(files[name])), BytesIO(files[name]))
    return buffer.getvalue()


def places(content: bytes) -> dict[str, slice]:
    """Where each file lies in a tar as :func:`pack` makes it.

    Raises:
        ArtifactError: it is not in that form, to the byte.
    """
    found: dict[str, slice] = {}
    place, last = 0, ""
    while (header := content[place : place + _BLOCK]) != bytes(_BLOCK):
        name, size = _read(header)
        start = place + _BLOCK
        place = start + _padded(size)
        if name <= last or len(found) == MAX_FILES or any(content[start + size : place]):
            raise _other_form()
        found[name] = slice(start, start + size)
        last = name
    end = content[place:]
    if len(content) != _whole(place) or any(end):
        raise _other_form()
    return found


def _read(header: bytes) -> tuple[str, int]:
    """The name and the size that ``header`` says, if it says nothing else."""
    try:
        entry = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
        is_ours = _header(entry.name, entry.size) == header and "/" not in entry.name
    except (tarfile.HeaderError, ValueError) as error:
        raise _other_form() from error
    if not is_ours:
        raise _other_form()
    return entry.name, entry.size


def _header(name: str, size: int) -> bytes:
    return _entry(name, size).tobuf(tarfile.USTAR_FORMAT)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, _MODE
    return entry


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _whole(end: int) -> int:
    """How long a tar is whose last file ends at ``end``: two empty blocks, then up to a full record."""
    return -(-(end + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _other_form() -> ArtifactError:
    return ArtifactError(
        _("the tar is not in the one form; make it with 'fleet publish model' or 'fleet agent pack'")
    )
