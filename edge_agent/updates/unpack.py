"""A strict reader of a model's tar: plain files, flat, exactly those that its manifest names.

Written for the one form that is published (ustar, uncompressed) instead of with a library for all
that tar ever was: links, devices, sparse files, long names and pax headers are simply not known.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

from edge_agent import durable
from edge_agent.errors import UpdateRefused
from fleet_protocol import manifest as mf
from fleet_protocol.errors import ManifestError
from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _

MANIFEST: Final = "manifest.json"

_BLOCK: Final = 512
_MAX_MEMBERS: Final = 65
"""The files that a manifest may list, and itself."""

_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_TYPE: Final = slice(156, 157)
_LINK: Final = slice(157, 257)
_MAGIC: Final = slice(257, 265)
_PREFIX: Final = slice(345, 500)


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    size: int


class Listing(Protocol):
    """A document that names every other file of its tar."""

    @property
    def files(self) -> tuple[mf.File, ...]:
        """The files."""


Listed = TypeVar("Listed", bound=Listing)


def unpack(archive: Path, folder: Path) -> mf.Manifest:
    """Write the files of the model in ``archive`` into ``folder``; see :func:`unpack_listed`."""
    return unpack_listed(archive, folder, MANIFEST, mf.MAX_MANIFEST, mf.parse)


def unpack_listed(
    archive: Path, folder: Path, name: str, limit: int, parse: Callable[[bytes], Listed]
) -> Listed:
    """Write the files in ``archive`` into ``folder``, flushed; the document ``name`` that lists them.

    ``folder`` is made. Its name and those in it are not yet flushed: the caller renames it. The
    document has at most ``limit`` bytes; ``parse`` raises ManifestError.

    Raises:
        UpdateRefused: it is no such tar, or holds anything but what its manifest names.
        OSError: reading or writing failed.
    """
    with archive.open("rb") as file:
        members = {member.name: member for member in _members(file)}
        listed, document = _document(file, members.pop(name, None), name, limit, parse)
        _require_exactly(members, listed, name)
        folder.mkdir()
        durable.fill(folder / name, document)
        for entry in listed.files:
            content = _read(file, members[entry.name])
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise _malformed(_("{name} is not the file that the manifest names").format(name=entry.name))
            durable.fill(folder / entry.name, content)
    return listed


def _document(
    file: IO[bytes], member: _Member | None, name: str, limit: int, parse: Callable[[bytes], Listed]
) -> tuple[Listed, bytes]:
    if member is None or member.size > limit:
        raise _malformed(_("it holds no {name} of at most {limit} bytes").format(name=name, limit=limit))
    document = _read(file, member)
    try:
        return parse(document), document
    except ManifestError as error:
        raise _malformed(str(error)) from None


def _require_exactly(members: dict[str, _Member], listed: Listing, own: str) -> None:
    named = {entry.name: entry.size for entry in listed.files}
    found = {name: member.size for name, member in members.items()}
    if own in named or len(named) < len(listed.files) or found != named:
        odd = sorted(found.items() ^ named.items()) or [(own, 0)]
        raise _malformed(_("{name!r} is not as {document} has it").format(name=odd[0][0], document=own))


def _members(file: IO[bytes]) -> Iterator[_Member]:
    """Every member up to the end mark; after it there is nothing but zeros."""
    seen: set[str] = set()
    while (header := file.read(_BLOCK)) != bytes(_BLOCK):
        member = _member(header, file.tell())
        if member.name in seen or len(seen) == _MAX_MEMBERS:
            raise _malformed(_("{name!r} is there twice, or there are too many").format(name=member.name))
        seen.add(member.name)
        yield member
        file.seek(member.start + _padded(member.size))
    while rest := file.read(_BLOCK):
        if rest.strip(b"\0"):
            raise _malformed(_("something follows its end"))


def _member(header: bytes, start: int) -> _Member:
    if len(header) < _BLOCK:
        raise _malformed(_("it ends early"))
    try:
        given = int(_text(header[_CHECKSUM]), 8)
        size = int(_text(header[_SIZE]), 8)
        name = _text(header[_NAME])
    except ValueError:
        raise _malformed(_("a header cannot be read")) from None
    summed = sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")
    plain = header[_TYPE] == b"0" and not header[_LINK].strip(b"\0") and not header[_PREFIX].strip(b"\0")
    if given != summed or size < 0 or not plain or header[_MAGIC] != b"ustar\x0000":
        raise _malformed(_("{name!r} is no plain file").format(name=name))
    if "/" in name or name in {"", ".", ".."}:
        raise _malformed(_("{name!r} lies in a folder").format(name=name))
    return _Member(name, start, size)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].strip(b" ").decode("ascii")


def _read(file: IO[bytes], member: _Member) -> bytes:
    file.seek(member.start)
    content = file.read(member.size)
    if len(content) < member.size:
        raise _malformed(_("it ends early"))
    return content


def _padded(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _malformed(reason: str) -> UpdateRefused:
    return UpdateRefused(Refusal.MALFORMED, _("the tar"), reason)
