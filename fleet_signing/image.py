"""The image repository: which artifacts exist. Metadata in, metadata out; nothing is read or written.

``targets`` and what it delegates to (``models``, ``policies``, …) are signed offline. Which versions of
them are the current ones is said by ``snapshot`` and ``timestamp``, signed by a server.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from securesystemslib.signer import Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet_protocol.targets import ROLES, Kind, Target, role_of
from fleet_protocol.texts import _
from fleet_signing.director import meta_file
from fleet_signing.errors import MetadataError, ReleaseError
from fleet_signing.lists import paths_of, require_room
from fleet_signing.metadata import (
    OFFLINE_LIFE,
    ONLINE_LIFE,
    SPEC,
    has_signed,
    next_version,
    seal,
    target_file,
    targets_in,
)
from fleet_signing.roles import HOLDERS

OFFLINE_ROLES: Final = (Targets.type, *ROLES)
"""The roles whose metadata is never signed on a server, the delegator first."""


def delegating(keys: Mapping[str, Sequence[Key]], version: int, at: datetime) -> Targets:
    """The top-level targets, which vouch for nothing and delegate each kind to the ``keys`` of its role."""
    roles = {
        role: DelegatedRole(
            role, [key.keyid for key in keys[role]], HOLDERS[role].threshold, True, paths_of(role)
        )
        for role in ROLES
    }
    known = {key.keyid: key for role in roles for key in keys[role]}
    return Targets(version, SPEC, at + OFFLINE_LIFE, {}, Delegations(known, roles))


def no_artifacts(at: datetime) -> Targets:
    """A delegated role that vouches for nothing yet."""
    return Targets(1, SPEC, at + OFFLINE_LIFE)


def add(
    role: Metadata[Targets], target: Target, signers: Sequence[Signer], at: datetime
) -> Metadata[Targets]:
    """``role`` in its next version, which vouches for ``target`` too.

    Raises:
        ReleaseError: an artifact of this name was published under this release or a higher one.
        MetadataError: the list would be longer than devices read.
    """
    latest = highest(role.signed, *target.key)
    if target.description.release <= latest:
        raise ReleaseError(
            _(
                "{name}: release {release} is not above {latest}, which is published; raise its release"
            ).format(name=target.description.name, release=target.description.release, latest=latest)
        )
    added = seal(_next(role.signed, role.signed.targets | {target.path: target_file(target)}, at), signers)
    require_room(role_of(target.description), added)
    return added


def holds(role: Targets, target: Target) -> bool:
    """Whether ``role`` vouches for exactly ``target`` already."""
    return target in targets_in(role)


def require_signed(role: Metadata[Targets], name: str, key: Key) -> None:
    """See to it that ``key`` itself has signed ``role``, called ``name``.

    Raises:
        MetadataError: it has not.
    """
    if not has_signed(key, role):
        raise MetadataError(
            _(
                "{role} {version} was not signed with this key; use the key that signs {role} now, "
                "and if that is this one, treat the server as stolen"
            ).format(role=name, version=role.signed.version)
        )


def renewed(role: Targets, at: datetime) -> Targets:
    """``role`` in its next version, with a new expiry and the same content."""
    return _next(role, role.targets, at)


def withdraw(
    role: Metadata[Targets], target: Target, signers: Sequence[Signer], at: datetime
) -> Metadata[Targets]:
    """``role`` in its next version, which vouches for ``target`` no more."""
    kept = {path: file for path, file in role.signed.targets.items() if path != target.path}
    return seal(_next(role.signed, kept, at), signers)


def highest(role: Targets, kind: Kind, name: str) -> int:
    """The highest release of an artifact's name that ``role`` vouches for; 0 for none."""
    found = (target for target in targets_in(role) if target.key == (kind, name))
    return max((target.description.release for target in found), default=0)


def snapshot(offline: Mapping[str, bytes], previous: int, at: datetime, signer: Signer) -> Metadata[Snapshot]:
    """Which version of each offline role is the current one; ``offline`` maps role to its bytes."""
    meta = {f"{role}.json": meta_file(_version(content), content) for role, content in offline.items()}
    return seal(Snapshot(next_version(previous, at), SPEC, at + ONLINE_LIFE, meta), [signer])


def timestamp(
    snapshot_version: int, content: bytes, previous: int, at: datetime, signer: Signer
) -> Metadata[Timestamp]:
    """Which snapshot is the current one; ``content`` are that snapshot's bytes."""
    meta = meta_file(snapshot_version, content)
    return seal(Timestamp(next_version(previous, at), SPEC, at + ONLINE_LIFE, meta), [signer])


def served_path(target: Target) -> str:
    """Where the bytes of ``target`` are served: ``models/pressure_leak/<sha256>.2.tar``."""
    folder, name = target.path.rsplit("/", 1)
    return f"{folder}/{target.sha256}.{name}"


def _next(role: Targets, targets: dict[str, TargetFile], at: datetime) -> Targets:
    return Targets(role.version + 1, SPEC, at + OFFLINE_LIFE, targets, role.delegations)


def _version(content: bytes) -> int:
    found: Metadata[Any] = Metadata.from_bytes(content)
    version: int = found.signed.version
    return version
