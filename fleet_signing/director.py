"""What the director says to one device: its targets, snapshot and timestamp, signed together. Pure.

There are no delegations, and every target names the device, so that one device's set is worth
nothing to another. No targets at all is a set too: silence can be replayed, a signed nothing cannot.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp

from fleet_protocol import delivery
from fleet_protocol.delivery import ANY, Delivery
from fleet_protocol.targets import Target
from fleet_signing.metadata import ONLINE_LIFE, SPEC, encode, file_name, seal, target_file

DEVICE: Final = "device"
"""The key of the device's id in the targets metadata itself: the empty set names its device too."""


@dataclass(frozen=True, slots=True)
class DirectorSet:
    """One device's metadata, all three of the same ``version``, as it is served."""

    version: int
    expires: datetime
    targets: bytes
    snapshot: bytes
    timestamp: bytes

    @property
    def files(self) -> Mapping[str, bytes]:
        """Each file under the name that a device asks for; the timestamp last."""
        return MappingProxyType(
            {
                file_name(Targets.type, self.version): self.targets,
                file_name(Snapshot.type, self.version): self.snapshot,
                file_name(Timestamp.type, self.version): self.timestamp,
            }
        )


def sign_set(
    device: str,
    targets: Iterable[Target],
    version: int,
    at: datetime,
    signer: Signer,
    terms: Mapping[str, Delivery] = MappingProxyType({}),
) -> DirectorSet:
    """What ``device`` shall have, signed at ``at`` under ``version``, which only grows for a device.

    ``terms``: by path, on which it is to be fetched; where there are none, as fast as it goes.
    """
    expires = at + ONLINE_LIFE
    ordered = [_for_device(target, device) for target in targets]
    signed = Targets(
        version,
        SPEC,
        expires,
        {target.path: _on_terms(target_file(target), terms.get(target.path, ANY)) for target in ordered},
        unrecognized_fields={DEVICE: device},
    )
    targets_bytes = encode(seal(signed, [signer]))
    snapshot = Snapshot(version, SPEC, expires, {"targets.json": meta_file(version, targets_bytes)})
    snapshot_bytes = encode(seal(snapshot, [signer]))
    timestamp = Timestamp(version, SPEC, expires, meta_file(version, snapshot_bytes))
    return DirectorSet(version, expires, targets_bytes, snapshot_bytes, encode(seal(timestamp, [signer])))


def meta_file(version: int, content: bytes) -> MetaFile:
    """How one role's metadata names another's."""
    return MetaFile(version, len(content), {"sha256": hashlib.sha256(content).hexdigest()})


def _on_terms(file: TargetFile, terms: Delivery) -> TargetFile:
    file.unrecognized_fields["custom"] |= delivery.custom_of(terms)
    return file


def _for_device(target: Target, device: str) -> Target:
    description = msgspec.structs.replace(target.description, device=device)
    return Target(target.path, target.length, target.sha256, description)
