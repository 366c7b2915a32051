"""Signed metadata in general: how long each role lives, how versions grow, bytes in and out. Pure.

Nothing here knows what a role is for; that is :mod:`fleet_signing.ceremony`,
:mod:`fleet_signing.image` and :mod:`fleet_signing.director`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, T, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from fleet_protocol import targets as agreed
from fleet_protocol.errors import TargetError
from fleet_protocol.texts import _
from fleet_signing.errors import MetadataError

SPEC: Final = "1.0.31"
"""The version of the TUF specification that all our metadata follows."""

ROOT_LIFE: Final = timedelta(days=730)
"""Three people with three keys meet for a new one; two years is what they can be asked for."""

OFFLINE_LIFE: Final = timedelta(days=365)
"""Targets and what they delegate to: signed anew with every publication, else once a year."""

ONLINE_LIFE: Final = timedelta(days=30)
"""Snapshots, timestamps and the director's word: what a courier with a stick may take to arrive."""

MAX_METADATA: Final = 4 * 1024 * 1024
"""Bytes of one role's metadata; python-tuf's client ends at 5 000 000 for targets."""

_SERIALIZER: Final = JSONSerializer(compact=True)


def now() -> datetime:
    """The time that metadata is made at, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def next_version(previous: int, at: datetime) -> int:
    """A version above ``previous`` that also grows where ``previous`` was lost.

    Versions of the roles that a server signs follow its clock (seconds since 1970), so that a
    server restored from a backup does not offer numbers that devices have already seen.
    """
    return max(previous + 1, int(at.timestamp()))


def seal(signed: T, signers: Sequence[Signer]) -> Metadata[T]:
    """``signed`` with the signature of every one of ``signers``."""
    metadata = Metadata(signed)
    payload = metadata.signed_bytes
    metadata.signatures = {signer.public_key.keyid: signer.sign(payload) for signer in signers}
    return metadata


def encode(metadata: Metadata[Any]) -> bytes:
    """``metadata`` as the bytes that are served."""
    return metadata.to_bytes(_SERIALIZER)


def decode(content: bytes, kind: type[T]) -> Metadata[T]:
    """The metadata of the role type ``kind`` in ``content``; its signatures are not looked at.

    Raises:
        MetadataError: it does not parse, is another type, or too large.
    """
    if len(content) > MAX_METADATA:
        raise MetadataError(
            _("metadata of {size} bytes; at most {limit}").format(size=len(content), limit=MAX_METADATA)
        )
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
    except (DeserializationError, RecursionError) as error:
        raise MetadataError(_("metadata does not parse: {reason}").format(reason=_cause(error))) from None
    if not isinstance(metadata.signed, kind):
        raise MetadataError(
            _("metadata of type {found!r} where {wanted!r} is due").format(
                found=metadata.signed.type, wanted=kind.type
            )
        )
    return metadata


def verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """See to it that ``metadata`` is signed by enough of the keys that ``delegator`` names for ``role``.

    Raises:
        MetadataError: it is not.
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise MetadataError(
            _("{role} is not signed by enough of its keys ({reason}); sign it with the right ones").format(
                role=role, reason=error
            )
        ) from None


def target_file(target: agreed.Target) -> TargetFile:
    """``target`` as metadata holds it, whether it was just made or read: JSON knows no tuples."""
    custom = msgspec.json.decode(msgspec.json.encode(agreed.custom_of(target.description)))
    return TargetFile(target.length, {"sha256": target.sha256}, target.path, {"custom": custom})


def targets_in(signed: Targets) -> list[agreed.Target]:
    """Every target that ``signed`` vouches for.

    Raises:
        MetadataError: one of them is no artifact of ours.
    """
    try:
        return [
            agreed.parse(path, file.length, file.hashes, file.custom) for path, file in signed.targets.items()
        ]
    except TargetError as error:
        raise MetadataError(str(error)) from None


def file_name(role: str, version: int) -> str:
    """What the metadata of ``role`` is called in a repository with consistent snapshots."""
    return f"{role}.json" if role == Timestamp.type else f"{version}.{role}.json"


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error)[:300]
