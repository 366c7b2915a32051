"""An image of an operating system as an artifact: opaque bytes for the board's own updater.

RAUC and SWUpdate check their images' own signatures; what is in them is theirs to judge. Only the format
is recognized here, by how a file begins, so that no board is sent what its tool cannot take. An image is
read in pieces: it may be larger than the memory.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Final

import msgspec

from firmware_profiles import compatibility, schema
from firmware_profiles.errors import ProfileUnknown
from fleet_protocol.targets import (
    MAX_IMAGE,
    Description,
    ImageFormat,
    Kind,
    Requirements,
    Target,
    path_of,
)
from fleet_protocol.texts import _
from fleet_signing.errors import ArtifactError

_MAGIC: Final = {
    b"hsqs": ImageFormat.RAUC,  # a squashfs with a signature behind it
    b"070702": ImageFormat.SWUPDATE,  # a cpio archive with checksums
    b"070701": ImageFormat.SWUPDATE,  # and one without
}

_PATH: Final = re.compile(r"os/([a-z][a-z0-9_]{0,62})/([1-9][0-9]{0,9})\.img\Z")


@dataclass(frozen=True, slots=True)
class OsImage:
    """An image that was measured, and the target that vouches for it."""

    target: Target
    file: Path

    def parts(self, size: int) -> Iterator[bytes]:
        """The bytes, ``size`` of them at a time.

        Raises:
            ArtifactError: it cannot be read.
        """
        try:
            with self.file.open("rb") as content:
                while part := content.read(size):
                    yield part
        except OSError as error:
            raise _unreadable(self.file, error) from error


def of_file(file: Path, name: str, version: str, release: int, profiles: Sequence[str]) -> OsImage:
    """The image in ``file``, for boards of ``profiles``.

    Raises:
        ArtifactError: it is no image, too large, or for a board that takes none of its format.
    """
    try:
        with file.open("rb") as content:
            described = _described(_format_of(file, content), name, version, release, profiles)
            return OsImage(measured(described, content), file)
    except OSError as error:
        raise _unreadable(file, error) from error


def measured(description: Description, content: BufferedIOBase) -> Target:
    """The target of ``content`` that is so described, wherever it was read to before.

    Raises:
        ArtifactError: it is empty or too large.
        OSError: it cannot be read.
    """
    content.seek(0, 2)
    size = content.tell()
    if not 0 < size <= MAX_IMAGE:
        raise ArtifactError(
            _("{name} has {size} bytes; at least 1 and at most {limit} are possible").format(
                name=description.name, size=size, limit=MAX_IMAGE
            )
        )
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Target(path_of(description), size, digest, description)


def uploaded(path: str, content: BufferedIOBase) -> Target:
    """What was uploaded as the image at ``path``; who signs for it says the rest.

    Raises:
        ArtifactError: no image has such a path, or it is none.
    """
    found = _PATH.match(path)
    if found is None:
        raise ArtifactError(
            _("{path!r} is no image's path; it is like os/NAME/RELEASE.img").format(path=path[:120])
        )
    requires = Requirements(image=_format_of(Path(path), content))
    name, release = found[1], int(found[2])
    return measured(
        Description(kind=Kind.OS, name=name, version="-", release=release, requires=requires), content
    )


def _described(
    image: ImageFormat, name: str, version: str, release: int, profiles: Sequence[str]
) -> Description:
    requires = Requirements(profiles=tuple(profiles), image=image)
    described = Description(kind=Kind.OS, name=name, version=version, release=release, requires=requires)
    try:
        described = msgspec.convert(msgspec.to_builtins(described), Description)
        problems = [
            problem for each in profiles for problem in compatibility.problems(requires, schema.load(each))
        ]
    except msgspec.ValidationError as error:
        raise ArtifactError(
            _("name, version or release cannot be used: {reason}").format(reason=error)
        ) from None
    except ProfileUnknown as error:
        raise ArtifactError(str(error)) from None
    if problems:
        raise ArtifactError(" ".join(problems))
    return described


def _format_of(file: Path, content: BufferedIOBase) -> ImageFormat:
    content.seek(0)
    start = content.read(6)
    for magic, image in _MAGIC.items():
        if start.startswith(magic):
            return image
    raise ArtifactError(_("{file} is neither a RAUC bundle nor an image for SWUpdate").format(file=file))


def _unreadable(file: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        _("{file} cannot be read: {reason}").format(file=file, reason=error.strerror or error)
    )
