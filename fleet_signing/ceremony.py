"""The key ceremony: who may say what, signed by the keys that never touch a server. Pure.

Three root keys are made, of which two have to agree; below them a key for targets and one for each
kind of artifact. A server's own public keys come in as a request. What goes back to it is a bundle:
the roots of both repositories, the top-level targets and the delegated roles, all signed, nothing
secret. A ceremony held again gives the next version of what was there: with new expiry dates, for
other keys of a server, or without a key that was lost or stolen.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from fleet_protocol.manifest import Digest
from fleet_protocol.targets import ROLES
from fleet_protocol.texts import _
from fleet_signing import image
from fleet_signing.errors import MetadataError
from fleet_signing.keys import generate, public_key, public_text
from fleet_signing.metadata import ROOT_LIFE, SPEC, decode, has_signed, seal, verify
from fleet_signing.roles import HOLDERS, KEY_NAMES

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
    """The keys that never touch a server: ``roles`` maps ``targets``, ``models``, … to all of its keys."""

    root: tuple[Signer, ...]
    roles: Mapping[str, tuple[Signer, ...]]

    @classmethod
    def generate(cls) -> "OfflineKeys":
        """New ones."""
        return cls.named({name: generate() for name in KEY_NAMES})

    @classmethod
    def named(cls, signers: Mapping[str, Signer]) -> "OfflineKeys":
        """All of them by their names, as :data:`.roles.KEY_NAMES` has them."""
        roles = {role: tuple(signers[name] for name in holders.keys) for role, holders in HOLDERS.items()}
        root = roles.pop(Root.type)
        return cls(root, MappingProxyType(roles))

    @property
    def by_role(self) -> Mapping[str, tuple[Signer, ...]]:
        """The keys of every role, the root's too."""
        return {Root.type: self.root, **self.roles}


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
    before: "_Bundle | None" = None


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    image: Digest
    director: Digest
    current: _Bundle | None = None


def hold(offline: OfflineKeys, online: OnlinePublic, at: datetime, before: Bundle | None = None) -> Bundle:
    """A ceremony at the time ``at``; ``before`` is everything that the server says it has.

    Held again, it keeps what was published and signs everything anew, with new dates. Nothing is
    believed of ``before`` that the same offline keys have not signed: a stolen server asks, too.

    Raises:
        MetadataError: ``before`` was not signed by enough of these root keys, or does not fit together.
    """
    if before is not None:
        _require_own(before, offline)
    public = {role: [signer.public_key for signer in signers] for role, signers in offline.by_role.items()}
    drawn = draw_up(public, online, at, before, ROLES)
    return Bundle(
        image_roots=(*drawn.image_roots[:-1], seal(drawn.image_roots[-1].signed, offline.root)),
        director_roots=(*drawn.director_roots[:-1], seal(drawn.director_roots[-1].signed, offline.root)),
        roles={role: seal(each.signed, offline.roles[role]) for role, each in drawn.roles.items()},
    )


def draw_up(
    public: Mapping[str, Sequence[Key]],
    online: OnlinePublic,
    at: datetime,
    before: Bundle | None,
    renewed: Collection[str],
) -> Bundle:
    """What a ceremony is to sign, unsigned: everything that is ``public`` of each role, on top of ``before``.

    Of the delegated roles only the ``renewed`` ones are in it; all of them where nothing was before.
    """
    for role, keys in public.items():
        if len({key.keyid for key in keys}) < len(keys):
            raise MetadataError(
                _("two keys of {role} are one and the same; each holder makes a key of their own").format(
                    role=role
                )
            )
    image_roots = before.image_roots if before else ()
    director_roots = before.director_roots if before else ()
    image_root = _root(public, online.image, (), image_roots, at)
    director_root = _root(public, online.director, (Targets.type,), director_roots, at)
    return Bundle(
        image_roots=(*image_roots, Metadata(image_root)),
        director_roots=(*director_roots, Metadata(director_root)),
        roles=_roles(public, at, before, renewed),
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


def online_key(key: Key) -> SSlibKey:
    """A server's own key, out of a root that names it; raises :class:`.KeyFileError` where it is none."""
    return public_key(str(key.to_dict()["keyval"]["public"]))


def encode_bundle(bundle: Bundle, before: Bundle | None = None) -> bytes:
    """``bundle`` as a file, to be carried to the server; with what was ``before``, to who signs it too."""
    return _json(_document(bundle, before))


def decode_bundle(content: bytes) -> Bundle:
    """The bundle in a file; its signatures are not looked at.

    Raises:
        MetadataError: it is none.
    """
    return decode_both(content)[0]


def decode_both(content: bytes) -> tuple[Bundle, Bundle | None]:
    """The bundle in a file, and what was before it where it says so; raises as :func:`decode_bundle`."""
    try:
        document = msgspec.json.decode(content, type=_Bundle)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MetadataError(
            _("this is no bundle of a ceremony ({reason}); make it with 'fleet key ceremony'").format(
                reason=error
            )
        ) from None
    return _bundle(document), _bundle(document.before) if document.before else None


def _document(bundle: Bundle, before: Bundle | None = None) -> _Bundle:
    return _Bundle(
        format=1,
        before=_document(before) if before else None,
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
    public: Mapping[str, Sequence[Key]],
    online: Key,
    also: Sequence[str],
    before: Sequence[Metadata[Root]],
    at: datetime,
) -> Root:
    """The root after those ``before``; ``online`` signs snapshot, timestamp and the roles in ``also``."""
    holders: dict[str, Sequence[Key]] = {
        Root.type: public[Root.type],
        Targets.type: public[Targets.type],
        **{role: [online] for role in (Snapshot.type, Timestamp.type, *also)},
    }
    keys = {key.keyid: key for holder in holders.values() for key in holder}
    roles = {
        role: Role([key.keyid for key in holder], HOLDERS[role].threshold if len(holder) > 1 else 1)
        for role, holder in holders.items()
    }
    version = before[-1].signed.version + 1 if before else 1
    return Root(version, SPEC, at + ROOT_LIFE, keys, roles, consistent_snapshot=True)


def _require_own(before: Bundle, offline: OfflineKeys) -> None:
    """See to it that ``before`` goes back to the root keys of ``offline``."""
    is_whole = before.image_roots and before.director_roots and {*before.roles} == {*image.OFFLINE_ROLES}
    if not is_whole:
        raise MetadataError(_("the request leaves out what was published; export it again"))
    for root in (before.image_roots[-1], before.director_roots[-1]):
        least = HOLDERS[Root.type].threshold
        if sum(has_signed(signer.public_key, root) for signer in offline.root) < least:
            raise MetadataError(
                _(
                    "what the server has was not signed by {least} of these root keys; hold the ceremony "
                    "with the keys of the last one"
                ).format(least=least)
            )
    top = before.roles[Targets.type]
    verify(before.image_roots[-1].signed, Targets.type, top)
    for role in ROLES:
        verify(top.signed, role, before.roles[role])


def _roles(
    public: Mapping[str, Sequence[Key]], at: datetime, before: Bundle | None, renewed: Collection[str]
) -> dict[str, Metadata[Targets]]:
    """The top-level targets and each delegated role that is due, in the version after ``before``."""
    version = before.roles[Targets.type].signed.version + 1 if before else 1
    drawn = {Targets.type: image.delegating({role: public[role] for role in ROLES}, version, at)}
    for role in ROLES:
        if before is None:
            drawn[role] = image.no_artifacts(at)
        elif role in renewed:
            drawn[role] = image.renewed(before.roles[role].signed, at)
    return {role: Metadata(signed) for role, signed in drawn.items()}


def _decode(content: dict[str, Any], kind: type[T]) -> Metadata[T]:
    return decode(msgspec.json.encode(content), kind)


def _json(document: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
