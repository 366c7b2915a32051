"""A wheel unpacked into a folder of packages; nothing that it holds is run.

A wheel is a zip (PEP 427). What is known here is what the agent's dependencies are made of: packages
and their metadata. Scripts are left out, because a slot is started through its interpreter; anything
that would be written elsewhere is refused.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from edge_agent.errors import UpdateRefused
from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _

MAX_BYTES: Final = 512 * 1024 * 1024
"""Unpacked bytes of all wheels of a build together."""

MAX_FILES: Final = 20_000

_CHUNK: Final = 1 << 20
_DATA: Final = ".data"
_PACKAGES: Final = frozenset({"purelib", "platlib"})
_AT_START: Final = frozenset({"sitecustomize", "usercustomize"})
"""What Python runs at every start, like what stands in a ``.pth``, before anything has looked at it."""

_LEFT_OUT: Final = frozenset({"scripts", "headers", "data"})


class Unpacker:
    """Unpacks one wheel after another into ``site``, within the limits for all of them."""

    def __init__(self, site: Path) -> None:
        self._site: Final = site
        self._files = 0
        self._bytes = 0

    def add(self, wheel: Path) -> None:
        """Unpack ``wheel``.

        Raises:
            UpdateRefused: it is no wheel, too large, or would write where it must not.
            OSError: it cannot be written.
        """
        try:
            with zipfile.ZipFile(wheel) as content:
                for entry, place in _places(content, wheel.name):
                    self._count(entry, wheel.name)
                    self._write(content, entry, self._site / place, wheel.name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            # RuntimeError is an encrypted one; NotImplementedError a compression nobody uses.
            raise _malformed(wheel.name, str(error)) from None

    def _count(self, entry: zipfile.ZipInfo, wheel: str) -> None:
        self._files += 1
        self._bytes += entry.file_size
        if self._files > MAX_FILES or self._bytes > MAX_BYTES:
            raise _malformed(
                wheel,
                _("the build has more than {files} files, or {size} bytes unpacked").format(
                    files=MAX_FILES, size=MAX_BYTES
                ),
            )

    def _write(self, content: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path, wheel: str) -> None:
        if place.exists():
            raise _malformed(wheel, _("{name!r} is there already").format(name=entry.filename))
        place.parent.mkdir(parents=True, exist_ok=True)
        with content.open(entry) as source, place.open("xb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)


def _places(content: zipfile.ZipFile, wheel: str) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Every file that belongs among the packages, and where."""
    for entry in content.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
            raise _malformed(wheel, _("{name!r} lies outside of it").format(name=entry.filename[:100]))
        place = _among_packages(path, wheel)
        if entry.is_dir() or place is None:
            continue
        # A package or a compiled module of such a name is imported like a file.
        is_path_file = len(place.parts) == 1 and place.suffix == ".pth"
        if is_path_file or place.parts[0].partition(".")[0] in _AT_START:
            raise _malformed(wheel, _("{name!r} would run at every start").format(name=entry.filename[:100]))
        yield entry, place


def _among_packages(path: PurePosixPath, wheel: str) -> PurePosixPath | None:
    """Where ``path`` of a wheel goes among the packages; None where it is left out."""
    first, *rest = path.parts
    if not first.endswith(_DATA):
        return path
    if len(rest) > 1 and rest[0] in _PACKAGES:
        return PurePosixPath(*rest[1:])
    if rest and rest[0] not in _LEFT_OUT | _PACKAGES:
        raise _malformed(wheel, _("{name!r} has no place").format(name=str(path)[:100]))
    return None


def _malformed(wheel: str, reason: str) -> UpdateRefused:
    return UpdateRefused(Refusal.MALFORMED, wheel, f"{wheel}: {reason}")
