"""The key ceremony: who may say what, signed by the keys that never touch a server. Pure.

Three root keys are made, of which two have to agree; below them a key for targets and one for each
kind of artifact. A server's own public keys come in as a request. What goes back to it is a bundle:
the roots of both repositories, the top-level targets and the delegated roles, all signed, nothing
secret. A ceremony held again gives the next version of what was there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from fleet_protocol.manifest import Digest
from fleet_protocol.targets import DELEGATIONS
from fleet_protocol.texts import _
from fleet_signing import image
from fleet_signing.errors import MetadataError
from fleet_signing.keys import generate, public_key, public_text
from fleet_signing.metadata import ROOT_LIFE, SPEC, decode, seal

ROOT_KEYS: Final = 3
ROOT_THRESHOLD: Final = 2
"""One lost root key is no disaster, and one stolen root key is none either."""

MAX_BUNDLE: Final = 16 * 1024 * 1024
"""Bytes of a ceremony's bundle."""

T = TypeVar("T", Root, Targets)


@dataclass(frozen=True, slots=True)
class OnlinePublic:
    """The public halves of a server's own keys: what a ceremony is asked to vouch for."""

    image: SSlibKey
    director: SSlibKey


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """A server's own keys: ``image`` signs snapshot and timestamp, ``director`` each device's set."""

    image: CryptoSigner
    director: CryptoSigner

    @classmethod
    def generate(cls) -> "OnlineKeys":
        """New ones."""
        return cls(generate(), generate())

    @property
    def public(self) -> OnlinePublic:
        """Their public halves."""
        return OnlinePublic(self.image.public_key, self.director.public_key)


@dataclass(frozen=True, slots=True)
class OfflineKeys:
    """The keys that never touch a server: ``roles`` maps ``targets``, ``models``, ``policies`` to its key."""

    root: tuple[CryptoSigner, ...]
    roles: Mapping[str, CryptoSigner]

    @classmethod
    def generate(cls) -> "OfflineKeys":
        """New ones."""
        root = tuple(generate() for _number in range(ROOT_KEYS))
        return cls(root, MappingProxyType({role: generate() for role in image.OFFLINE_ROLES}))


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a ceremony gives: every root of both repositories in order, and the offline roles' metadata."""

    image_roots: tuple[Metadata[Root], ...]
    director_roots: tuple[Metadata[Root], ...]
    roles: Mapping[str, Metadata[Targets]]


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    image: Digest
    director: Digest


class _Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    image_roots: tuple[dict[str, Any], ...]
    director_roots: tuple[dict[str, Any], ...]
    roles: dict[str, dict[str, Any]]


def hold(
    offline: OfflineKeys,
    online: OnlinePublic,
    at: datetime,
    before: Bundle | None = None,
    former_root: Sequence[Signer] = (),
) -> Bundle:
    """A ceremony at the time ``at``; ``before`` is what the last one gave.

    ``former_root`` are root keys that are given up with this ceremony: they sign a last time.
    What was published stays published.
    """
    signers = (*offline.root, *former_root)
    image_root = _root(offline, online.image, (), _version(before.image_roots if before else ()), at)
    director_root = _root(
        offline, online.director, (Targets.type,), _version(before.director_roots if before else ()), at
    )
    return Bundle(
        image_roots=(*(before.image_roots if before else ()), _seal_root(image_root, signers)),
        director_roots=(*(before.director_roots if before else ()), _seal_root(director_root, signers)),
        roles=_roles(offline, at, before),
    )


def encode_request(online: OnlinePublic) -> bytes:
    """The request file for a ceremony."""
    return _json(_Request(1, public_text(online.image), public_text(online.director)))


def decode_request(content: bytes) -> OnlinePublic:
    """The server's public keys in a request file.

    Raises:
        MetadataError: it is none.
    """
    try:
        request = msgspec.json.decode(content, type=_Request)
    except msgspec.MsgspecError as error:
        raise MetadataError(
            _("this is no request of a server ({reason}); make it with 'fleet key export'").format(
                reason=error
            )
        ) from None
    return OnlinePublic(public_key(request.image), public_key(request.director))


def encode_bundle(bundle: Bundle) -> bytes:
    """``bundle`` as a file, to be carried to the server."""
    return _json(
        _Bundle(
            format=1,
            image_roots=tuple(root.to_dict() for root in bundle.image_roots),
            director_roots=tuple(root.to_dict() for root in bundle.director_roots),
            roles={role: metadata.to_dict() for role, metadata in bundle.roles.items()},
        )
    )


def decode_bundle(content: bytes) -> Bundle:
    """The bundle in a file; its signatures are not looked at.

    Raises:
        MetadataError: it is none.
    """
    try:
        document = msgspec.json.decode(content, type=_Bundle)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MetadataError(
            _("this is no bundle of a ceremony ({reason}); make it with 'fleet key ceremony'").format(
                reason=error
            )
        ) from None
    return Bundle(
        image_roots=tuple(_decode(root, Root) for root in document.image_roots),
        director_roots=tuple(_decode(root, Root) for root in document.director_roots),
        roles={role: _decode(metadata, Targets) for role, metadata in document.roles.items()},
    )


def _root(offline: OfflineKeys, online: Key, also: Sequence[str], previous: int, at: datetime) -> Root:
    """The root after version ``previous``; ``online`` signs snapshot, timestamp and the roles in ``also``."""
    holders: dict[str, list[Key]] = {
        Root.type: [signer.public_key for signer in offline.root],
        Targets.type: [offline.roles[Targets.type].public_key],
        **{role: [online] for role in (Snapshot.type, Timestamp.type, *also)},
    }
    keys = {key.keyid: key for holder in holders.values() for key in holder}
    roles = {
        role: Role([key.keyid for key in holder], ROOT_THRESHOLD if role == Root.type else image.THRESHOLD)
        for role, holder in holders.items()
    }
    return Root(previous + 1, SPEC, at + ROOT_LIFE, keys, roles, consistent_snapshot=True)


def _seal_root(root: Root, signers: Sequence[Signer]) -> Metadata[Root]:
    return seal(root, signers)


def _roles(offline: OfflineKeys, at: datetime, before: Bundle | None) -> dict[str, Metadata[Targets]]:
    keys = {role: [offline.roles[role].public_key] for role in DELEGATIONS.values()}
    version = before.roles[Targets.type].signed.version + 1 if before else 1
    top = seal(image.delegating(keys, version, at), [offline.roles[Targets.type]])
    return {Targets.type: top} | {
        role: image.renew(before.roles[role], [offline.roles[role]], at)
        if before
        else seal(image.no_artifacts(at), [offline.roles[role]])
        for role in DELEGATIONS.values()
    }


def _version(roots: Sequence[Metadata[Root]]) -> int:
    return roots[-1].signed.version if roots else 0


def _decode(content: dict[str, Any], kind: type[T]) -> Metadata[T]:
    return decode(msgspec.json.encode(content), kind)


def _json(document: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
