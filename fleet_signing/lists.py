"""Which list vouches for a path, and how long a list may grow. Pure.

Every role has one flat list. Where a list grows long, bins by the path's hash (succinct roles of the
TUF specification) would come below the role, and here is where they would be decided.
"""

from typing import Final

from tuf.api.metadata import Metadata, Targets

from fleet_protocol.texts import _
from fleet_signing.errors import MetadataError
from fleet_signing.metadata import MAX_METADATA, encode

LONG: Final = 1000
"""Artifacts in a list from which on every device notices each publication: a third of a MB to fetch
anew, 5 MiB of memory to read (``python -m benchmarks lists``)."""


def paths_of(role: str) -> list[str]:
    """The patterns of the paths that are the delegated ``role``'s alone to vouch for."""
    return [f"{role}/*/*"]


def is_long(signed: Targets) -> bool:
    """Whether it is time to sign lists without the releases that nothing runs any more."""
    return len(signed.targets) > LONG


def require_room(role: str, metadata: Metadata[Targets]) -> None:
    """See to it that devices can read the list of ``role``.

    Raises:
        MetadataError: it is longer than they take.
    """
    size = len(encode(metadata))
    if size > MAX_METADATA:
        raise MetadataError(
            _(
                "the list of {role} would have {size} bytes with {count} artifacts, and no device reads more "
                "than {limit}; publish without the releases that nothing runs any more"
            ).format(role=role, size=size, count=len(metadata.signed.targets), limit=MAX_METADATA)
        )
