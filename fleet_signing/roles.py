"""Who holds the offline keys: how many each role has, what they are called, how many have to agree. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tuf.api.metadata import Root, Targets

from fleet_protocol.targets import ACTUATION, ROLES


@dataclass(frozen=True, slots=True)
class Holders:
    """The keys of one role, by the names of their files, and how many of them have to sign."""

    keys: tuple[str, ...]
    threshold: int


def _of(role: str, count: int, threshold: int) -> Holders:
    names = tuple(f"{role}-{number}" for number in range(1, count + 1)) if count > 1 else (role,)
    return Holders(names, threshold)


_COUNTS: Final = {
    # One lost key is no disaster, and one stolen key is none either.
    Root.type: (3, 2),
    Targets.type: (3, 2),
    # What moves something in the world takes two people, always.
    ACTUATION: (2, 2),
}

HOLDERS: Final[Mapping[str, Holders]] = {
    role: _of(role, *_COUNTS.get(role, (1, 1))) for role in (Root.type, Targets.type, *ROLES)
}
"""Every role whose keys never lie on a server."""

KEY_NAMES: Final = tuple(name for holders in HOLDERS.values() for name in holders.keys)
"""The names of all offline keys, the root's first."""
