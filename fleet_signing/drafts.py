"""Drafts: metadata that several people sign, each at a place of their own, who never have to meet. Pure.

A draft is a bundle that is not signed by enough keys yet, together with everything that was published
before it. Whoever holds a key adds its signature; what two have signed apart is put together again.
Whether a draft is complete, and who is still missing, can be said without any key.

A key signs only what builds on what it has signed before: a draft could come from a thief. A key that
is new has signed nothing; that has to be said.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import CanonicalJSONSerializer

from fleet_protocol.targets import ROLES, role_of
from fleet_protocol.texts import _
from fleet_signing import agreed, ceremony
from fleet_signing.ceremony import Bundle, OnlinePublic
from fleet_signing.errors import MetadataError, StaleError
from fleet_signing.metadata import has_signed, targets_in, verify
from fleet_signing.roles import HOLDERS


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be signed, on top of what was published ``before``; None is nothing."""

    bundle: Bundle
    before: Bundle | None = None


class Item(NamedTuple):
    """One document of a draft that is to be signed.

    ``role`` is what it is in the eyes of its ``delegators``, each of which has to find enough
    signatures on it; ``former`` are the documents whose place it takes, the oldest first.
    """

    name: str
    role: str
    metadata: Metadata[Any]
    delegators: tuple[Root | Targets, ...]
    former: tuple[Metadata[Any], ...]


class Lack(NamedTuple):
    """What one document still needs: so many signatures, by any of these keys."""

    name: str
    signatures: int
    keys: tuple[str, ...]


def draw_up(public: Mapping[str, Key], online: OnlinePublic, at: datetime, before: Bundle | None) -> Draft:
    """The draft of a ceremony; ``public`` are the keys that are new, by name, the others stay as they are.

    Of the delegated roles only those are in it whose keys change, so that nobody else has to sign.

    Raises:
        MetadataError: a key is missing, or what was before does not fit together.
    """
    if before is not None:
        _require_whole(before)
    known = known_keys(before) if before else {}
    keys = {**known, **public}
    missing = [name for holders in HOLDERS.values() for name in holders.keys if name not in keys]
    if missing:
        raise MetadataError(
            _("the public halves of these keys are missing: {names}; make each with 'fleet key new'").format(
                names=", ".join(missing)
            )
        )
    by_role = {role: [keys[name] for name in holders.keys] for role, holders in HOLDERS.items()}
    changed = [role for role in ROLES if any(keys[name] != known.get(name) for name in HOLDERS[role].keys)]
    return Draft(ceremony.draw_up(by_role, online, at, before, changed), before)


def known_keys(published: Bundle) -> dict[str, Key]:
    """The offline keys that ``published`` names now, by their names."""
    found: dict[str, Key] = {}
    for role, holders in HOLDERS.items():
        delegator = _delegator(published, role)
        keyids = delegator.get_delegated_role(role).keyids
        found |= dict(zip(holders.keys, (delegator.get_key(keyid) for keyid in keyids), strict=False))
    return found


def items(draft: Draft) -> Iterator[Item]:
    """Everything in ``draft`` that is not published yet, the roots first."""
    before = draft.before
    for name, chain, former in (
        ("image root", draft.bundle.image_roots, before.image_roots if before else ()),
        ("director root", draft.bundle.director_roots, before.director_roots if before else ()),
    ):
        if len(chain) > len(former):
            newest = chain[-1]
            delegators = tuple(each.signed for each in (*former[-1:], newest))
            yield Item(name, Root.type, newest, delegators, tuple(former))
    for role, metadata in draft.bundle.roles.items():
        taken = before.roles.get(role) if before else None
        if taken is None or taken.signed != metadata.signed:
            delegator = _delegator(together(draft), role)
            yield Item(role, role, metadata, (delegator,), (taken,) if taken else ())


def sign(draft: Draft, signer: Signer, *, is_new: bool = False) -> Draft:
    """``draft`` with the signatures of ``signer``, wherever one of its documents asks for this key.

    ``is_new``: this key has signed nothing before, and whoever holds it has compared the fingerprint.

    Raises:
        MetadataError: nothing asks for this key, or it would sign on top of what it has never signed.
    """
    if draft.before is not None:
        _require_whole(draft.before)
    key = signer.public_key
    due = [item for item in items(draft) if key.keyid in _asked(item)]
    if not due:
        raise MetadataError(_("nothing in this draft asks for this key"))
    for item in due:
        if not is_new and not any(has_signed(key, former) for former in item.former):
            raise MetadataError(
                _(
                    "this key has not signed what {name} {version} builds on; if it is a new key, say so, "
                    "and if it is not, treat the server as stolen"
                ).format(name=item.name, version=item.metadata.signed.version)
            )
    signed = {id(item.metadata): _signed(item.metadata, signer) for item in due}
    return replace(draft, bundle=_exchanged(draft.bundle, signed))


def asks(draft: Draft, key: Key) -> bool:
    """Whether a signature of ``key`` counts for anything in ``draft``."""
    return any(key.keyid in _asked(item) for item in items(draft))


def combine(drafts: Sequence[Draft]) -> Draft:
    """One draft with the signatures of all of them.

    Raises:
        StaleError: they are not the same draft.
    """
    first = drafts[0]
    for other in drafts[1:]:
        if fingerprint(other) != fingerprint(first):
            raise StaleError(_("these are different drafts; have the same one signed by everybody"))
    found: dict[int, Metadata[Any]] = {}
    for item, *others in zip(*(items(draft) for draft in drafts), strict=True):
        metadata = Metadata(item.metadata.signed)
        for each in (item, *others):
            metadata.signatures |= each.metadata.signatures
        found[id(item.metadata)] = metadata
    return replace(first, bundle=_exchanged(first.bundle, found))


def lacking(draft: Draft) -> list[Lack]:
    """What every document still needs; nothing of one that enough keys have signed."""
    return [lack for item in items(draft) for lack in _lacks(item)]


def fingerprint(draft: Draft) -> str:
    """What people read to each other to know that they sign the same: 32 digits. Signatures do not count."""
    hasher = hashlib.sha256()
    for item in items(draft):
        hasher.update(f"{item.name}\n".encode())
        hasher.update(hashlib.sha256(CanonicalJSONSerializer().serialize(item.metadata.signed)).digest())
    digits = hasher.hexdigest()[:32]
    return " ".join(digits[place : place + 4] for place in range(0, len(digits), 4))


def together(draft: Draft) -> Bundle:
    """Everything as it will be once the draft is published."""
    before = draft.before
    if before is None:
        return draft.bundle
    return Bundle(
        draft.bundle.image_roots or before.image_roots,
        draft.bundle.director_roots or before.director_roots,
        {**before.roles, **draft.bundle.roles},
    )


def encode(draft: Draft) -> bytes:
    """``draft`` as a file, to be passed on: nothing in it is secret."""
    return ceremony.encode_bundle(draft.bundle, draft.before)


def decode(content: bytes) -> Draft:
    """The draft in a file, which asks every role for what is agreed; its signatures are not looked at.

    Raises:
        MetadataError: it is none, or gives somebody more than is agreed.
    """
    draft = Draft(*ceremony.decode_both(content))
    whole = together(draft)
    top = whole.roles.get(Targets.type)
    delegated = top.signed.delegations.roles if top and top.signed.delegations else None
    fits = whole.image_roots and whole.director_roots and {*(delegated or ())} == {*ROLES}
    if not fits or draft.bundle.roles.keys() - {Targets.type, *ROLES}:
        raise MetadataError(_("this is no draft; make it with 'fleet key draft' or 'fleet publish'"))
    for each in (draft.bundle, draft.before or whole):
        _require_agreed(each)
    return draft


def _require_agreed(bundle: Bundle) -> None:
    """See to it that people can be shown what ``bundle`` says: nothing in it is more than what they see."""
    agreed.require_roots("image", (root.signed for root in bundle.image_roots))
    agreed.require_roots("director", (root.signed for root in bundle.director_roots))
    for role, metadata in bundle.roles.items():
        if role == Targets.type:
            agreed.require_delegations(metadata.signed)
            continue
        if metadata.signed.delegations is not None:
            raise MetadataError(_("{role} may not delegate").format(role=role))
        if any(role_of(target.description) != role for target in targets_in(metadata.signed)):
            raise MetadataError(_("{role} vouches for what is not its own").format(role=role))


def _require_whole(before: Bundle) -> None:
    """See to it that what was before fits together: every root by the one before, every role by its own."""
    if not (before.image_roots and before.director_roots) or before.roles.keys() != {Targets.type, *ROLES}:
        raise MetadataError(_("the draft leaves out what was published; make it again"))
    for chain in (before.image_roots, before.director_roots):
        for older, newer in zip(chain[:1] + chain, chain, strict=False):
            verify(older.signed, Root.type, newer)
            verify(newer.signed, Root.type, newer)
    for role, metadata in before.roles.items():
        verify(_delegator(before, role), role, metadata)


def _delegator(published: Bundle, role: str) -> Root | Targets:
    if role in (Root.type, Targets.type):
        return published.image_roots[-1].signed
    return published.roles[Targets.type].signed


def _asked(item: Item) -> set[str]:
    """The ids of the keys whose signature counts on ``item``."""
    return {keyid for each in item.delegators for keyid in each.get_delegated_role(item.role).keyids}


def _signed(metadata: Metadata[Any], signer: Signer) -> Metadata[Any]:
    more: Metadata[Any] = Metadata(metadata.signed)
    more.signatures = {**metadata.signatures, signer.public_key.keyid: signer.sign(more.signed_bytes)}
    return more


def _exchanged(bundle: Bundle, found: Mapping[int, Metadata[Any]]) -> Bundle:
    """``bundle`` with each document that has another one in ``found``, by its identity."""

    def each(documents: Iterable[Metadata[Any]]) -> tuple[Metadata[Any], ...]:
        return tuple(found.get(id(document), document) for document in documents)

    roles = dict(zip(bundle.roles, each(bundle.roles.values()), strict=True))
    return Bundle(each(bundle.image_roots), each(bundle.director_roots), roles)


def _lacks(item: Item) -> Iterator[Lack]:
    for delegator in item.delegators:
        result = delegator.get_verification_result(
            item.role, item.metadata.signed_bytes, item.metadata.signatures
        )
        if result.verified:
            continue
        keyids = delegator.get_delegated_role(item.role).keyids
        names = dict(zip(keyids, HOLDERS[item.role].keys, strict=False))
        could = tuple(name for keyid, name in names.items() if keyid in result.unsigned)
        yield Lack(item.name, result.threshold - len(result.signed), could)
