"""The key ceremony: who may say what, signed by the keys that never touch a server. Pure.

Three root keys are made, of which two have to agree; below them a key for targets and one for each
kind of artifact. A server's own public keys come in as a request. What goes back to it is a bundle:
the roots of both repositories, the top-level targets and the delegated roles, all signed, nothing
secret. A ceremony held again gives the next version of what was there: with new expiry dates, for
other keys of a server, or without a key that was lost or stolen.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
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


@dataclass(frozen=True, slots=True)
class Request:
    """What a server asks of a ceremony: to vouch for its keys, on top of what it has; None for nothing."""

    online: OnlinePublic
    current: Bundle | None


class _Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    roles: dict[str, dict[str, Any]]
    image_roots: tuple[dict[str, Any], ...] = ()
    director_roots: tuple[dict[str, Any], ...] = ()


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    image: Digest
    director: Digest
    current: _Bundle | None = None


def hold(offline: OfflineKeys, online: OnlinePublic, at: datetime, before: Bundle | None = None) -> Bundle:
    """A ceremony at the time ``at``; ``before`` is everything that the server has.

    Held again, it keeps what was published, and signs a delegated role anew only where its key is
    another one than before. Whether enough of the former root keys take part is for the acceptance
    to say (:mod:`fleet_signing.acceptance`).
    """
    image_roots = before.image_roots if before else ()
    director_roots = before.director_roots if before else ()
    image_root = _root(offline, online.image, (), image_roots, at)
    director_root = _root(offline, online.director, (Targets.type,), director_roots, at)
    return Bundle(
        image_roots=(*image_roots, seal(image_root, offline.root)),
        director_roots=(*director_roots, seal(director_root, offline.root)),
        roles=_roles(offline, at, before),
    )


def encode_request(request: Request) -> bytes:
    """The request file of a server."""
    return _json(
        _Request(
            format=1,
            image=public_text(request.online.image),
            director=public_text(request.online.director),
            current=_document(request.current) if request.current else None,
        )
    )


def decode_request(content: bytes) -> Request:
    """The request in a file.

    Raises:
        MetadataError: it is none.
    """
    try:
        document = msgspec.json.decode(content, type=_Request)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MetadataError(
            _("this is no request of a server ({reason}); make it with 'fleet key export'").format(
                reason=error
            )
        ) from None
    online = OnlinePublic(public_key(document.image), public_key(document.director))
    return Request(online, _bundle(document.current) if document.current else None)


def fingerprint(online: OnlinePublic) -> str:
    """What two people read to each other to know that a request is the server's own: 32 digits."""
    both = f"{public_text(online.image)} {public_text(online.director)}"
    digits = hashlib.sha256(both.encode()).hexdigest()[:32]
    return " ".join(digits[place : place + 4] for place in range(0, len(digits), 4))


def encode_bundle(bundle: Bundle) -> bytes:
    """``bundle`` as a file, to be carried to the server."""
    return _json(_document(bundle))


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
    return _bundle(document)


def _document(bundle: Bundle) -> _Bundle:
    return _Bundle(
        format=1,
        image_roots=tuple(root.to_dict() for root in bundle.image_roots),
        director_roots=tuple(root.to_dict() for root in bundle.director_roots),
        roles={role: metadata.to_dict() for role, metadata in bundle.roles.items()},
    )


def _bundle(document: _Bundle) -> Bundle:
    return Bundle(
        image_roots=tuple(_decode(root, Root) for root in document.image_roots),
        director_roots=tuple(_decode(root, Root) for root in document.director_roots),
        roles={role: _decode(metadata, Targets) for role, metadata in document.roles.items()},
    )


def _root(
    offline: OfflineKeys, online: Key, also: Sequence[str], before: Sequence[Metadata[Root]], at: datetime
) -> Root:
    """The root after those ``before``; ``online`` signs snapshot, timestamp and the roles in ``also``."""
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
    version = before[-1].signed.version + 1 if before else 1
    return Root(version, SPEC, at + ROOT_LIFE, keys, roles, consistent_snapshot=True)


def _roles(offline: OfflineKeys, at: datetime, before: Bundle | None) -> dict[str, Metadata[Targets]]:
    """The top-level targets, and each delegated role that has to be signed now."""
    keys = {role: [offline.roles[role].public_key] for role in DELEGATIONS.values()}
    known = before.roles if before else {}
    version = known[Targets.type].signed.version + 1 if Targets.type in known else 1
    top = image.delegating(keys, version, at)
    signed = {Targets.type: seal(top, [offline.roles[Targets.type]])}
    for role in DELEGATIONS.values():
        if role not in known:
            signed[role] = seal(image.no_artifacts(at), [offline.roles[role]])
        elif offline.roles[role].public_key.keyid not in known[role].signatures:
            signed[role] = image.renew(known[role], [offline.roles[role]], at)
    return signed


def _decode(content: dict[str, Any], kind: type[T]) -> Metadata[T]:
    return decode(msgspec.json.encode(content), kind)


def _json(document: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
