"""Somebody who has the server's disk: its database, its repository, and the keys that lie on it.

What a thief lacks are the offline keys. So a thief can put older metadata back, or sign a snapshot of
a forged role with the server's own key; the device has to see through both.
"""

import shutil
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from fleet_protocol.targets import Description, Kind, Target, path_of
from fleet_signing import image, keys
from fleet_signing.metadata import decode, encode, file_name, now

ROLE: Final = "models"
OFFLINE: Final = image.OFFLINE_ROLES


class Thief:
    """Works on the data folder of a stolen server."""

    def __init__(self, server: Path, loot: Path) -> None:
        """Keep what is taken in ``loot``."""
        self._metadata = server / "updates" / "image" / "metadata"
        self._online = server / "updates" / "keys" / f"image{keys.SUFFIX}"
        self._loot = loot

    def remember(self) -> None:
        """Keep the repository as it is now."""
        shutil.rmtree(self._loot, ignore_errors=True)
        shutil.copytree(self._metadata, self._loot)

    def put_back(self) -> None:
        """Offer the repository as it was: a replay."""
        for file in self._loot.iterdir():
            shutil.copy(file, self._metadata / file.name)

    def forge(self) -> None:
        """Offer a model that nobody published, under a role signed with a key of the thief's own."""
        timestamp = decode((self._metadata / "timestamp.json").read_bytes(), Timestamp)
        snapshot = self._read(Snapshot, "snapshot", timestamp.signed.snapshot_meta.version)
        roles = {role: self._bytes(role, snapshot) for role in OFFLINE}
        forged = image.add(decode(roles[ROLE], Targets), _mine(), [keys.generate()], now())
        self._write(ROLE, forged)
        roles[ROLE] = encode(forged)
        online = keys.read_open(self._online)
        mine = image.snapshot(roles, snapshot.signed.version, now(), online)
        self._write("snapshot", mine)
        self._write(
            "timestamp",
            image.timestamp(mine.signed.version, encode(mine), timestamp.signed.version, now(), online),
        )

    def _bytes(self, role: str, snapshot: Metadata[Snapshot]) -> bytes:
        return (self._metadata / file_name(role, snapshot.signed.meta[f"{role}.json"].version)).read_bytes()

    def _read(self, kind: type[Any], role: str, version: int) -> Metadata[Any]:
        return decode((self._metadata / file_name(role, version)).read_bytes(), kind)

    def _write(self, role: str, metadata: Metadata[Any]) -> None:
        (self._metadata / file_name(role, metadata.signed.version)).write_bytes(encode(metadata))


def _mine() -> Target:
    description = Description(kind=Kind.MODEL, name="trojan", version="1", release=1)
    return Target(path_of(description), 1, "0" * 64, description)
