"""The high-water mark: the highest versions and releases that this device has ever accepted.

python-tuf keeps verified metadata and compares new metadata with it, but does not flush it: after a
power cut it may be empty, and a server that was rolled back would be believed. What is written here
is flushed before what it protects is used, so python-tuf's folder is no more than a cache.

Where the root names other keys for timestamp or snapshot than before, their versions begin anew, as
the TUF specification has it (5.3.11): whoever stole the old keys may have signed any number.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edge_agent import durable
from edge_agent.errors import UpdateBroken, UpdateRefused
from fleet_protocol.messages import Count
from fleet_protocol.targets import Kind, Refusal
from fleet_protocol.texts import _

FILE_NAME: Final = "marks.json"
MAX_BYTES: Final = 1 << 20
ROOT: Final = "root"


class RepositoryMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One repository: the highest version of each role, and which keys the online roles had then."""

    versions: dict[str, Count] = {}
    keys: str = ""


class Marks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that only grows.

    ``releases`` holds the highest release ever accepted under ``kind/name``. ``verified_ms`` is the
    latest time, in ms since 1970, at which metadata was in force: no honest clock is earlier. It
    cannot run ahead of what was signed, because expired metadata is never in force.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    repositories: dict[str, RepositoryMark] = {}
    releases: dict[str, Count] = {}
    verified_ms: Count = 0

    def highest(self, kind: Kind, name: str) -> int:
        """The highest release ever accepted of this artifact, 0 for none."""
        return self.releases.get(f"{kind.value}/{name}", 0)

    def with_release(self, kind: Kind, name: str, release: int) -> "Marks":
        """These marks after ``release`` was accepted."""
        key = f"{kind.value}/{name}"
        return msgspec.structs.replace(
            self, releases=self.releases | {key: max(release, self.releases.get(key, 0))}
        )

    def with_versions(self, seen: Mapping[str, RepositoryMark], at_ms: int) -> "Marks":
        """These marks after both repositories were verified at ``at_ms``.

        Raises:
            UpdateRefused: a repository is behind what was seen before.
        """
        raised = {name: _raised(name, self.repositories.get(name), mark) for name, mark in seen.items()}
        return msgspec.structs.replace(
            self, repositories=self.repositories | raised, verified_ms=max(self.verified_ms, at_ms)
        )


def load(folder: Path) -> Marks:
    """The marks in ``folder``; new ones where there are none yet.

    Raises:
        UpdateBroken: they are there and cannot be read. Without them a replay would be believed, so
            nothing is accepted until somebody has looked.
    """
    file = folder / FILE_NAME
    try:
        with file.open("rb") as content:
            return msgspec.json.decode(content.read(MAX_BYTES), type=Marks)
    except FileNotFoundError:
        return Marks()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpdateBroken(
            _(
                "{file} cannot be read ({reason}); no update is accepted until it is restored, or removed "
                "by somebody who has made sure that the server is the right one"
            ).format(file=file, reason=error)
        ) from None


def save(folder: Path, marks: Marks) -> None:
    """Write ``marks``; when this returns they outlive a power cut."""
    durable.make_folder(folder)
    durable.write(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(marks), indent=1))


def _raised(name: str, before: RepositoryMark | None, seen: RepositoryMark) -> RepositoryMark:
    if before is None:
        return seen
    rotated = before.keys != seen.keys and seen.versions[ROOT] > before.versions.get(ROOT, 0)
    for role, version in before.versions.items():
        if rotated and role != ROOT:
            continue
        found = seen.versions.get(role, 0)
        if found < version:
            raise UpdateRefused(
                Refusal.REPLAYED,
                name,
                _("{role} has version {found}; {version} was seen here before").format(
                    role=role, found=found, version=version
                ),
            )
    return seen
