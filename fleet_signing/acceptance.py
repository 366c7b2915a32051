"""Whether newly signed metadata may take the place of what is there. Pure.

A server asks before it publishes anything, a ceremony before it hands anything out. What is refused
here would be refused by every device; what is accepted here every device can follow.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet_protocol.targets import ROLES, Target, role_of
from fleet_protocol.texts import _
from fleet_signing import agreed
from fleet_signing.ceremony import Bundle, OnlinePublic
from fleet_signing.errors import MetadataError, StaleError
from fleet_signing.image import OFFLINE_ROLES
from fleet_signing.metadata import targets_in, verify


def accept(
    current: Bundle | None,
    incoming: Bundle,
    online: OnlinePublic,
    at: datetime,
    require_bytes: Callable[[Target], None],
) -> Bundle:
    """What is published once ``incoming`` has been taken on top of ``current``.

    ``require_bytes`` raises where the bytes of a newly vouched target are not there. Taking the
    same again changes nothing.

    Raises:
        StaleError: a version does not grow, or is another one than is there under its number.
        MetadataError: signatures, keys, expiry, delegations or targets are not as they have to be.
    """
    image_roots = _extend("image", current.image_roots if current else (), incoming.image_roots)
    director_roots = _extend("director", current.director_roots if current else (), incoming.director_roots)
    require_online(image_roots[-1], director_roots[-1], online)
    known = current.roles if current else {}
    fresh = {role: each for role, each in incoming.roles.items() if _is_next(role, known.get(role), each)}
    roles = _complete({**known, **fresh})
    _require_signatures(image_roots[-1].signed, roles)
    _require_alive("image root", image_roots[-1], at)
    _require_alive("director root", director_roots[-1], at)
    for role, metadata in fresh.items():
        _require_alive(role, metadata, at)
        _require_content(role, metadata.signed, known.get(role), require_bytes)
    _require_apart(roles)
    return Bundle(image_roots, director_roots, roles)


def require_online(image_root: Metadata[Root], director_root: Metadata[Root], online: OnlinePublic) -> None:
    """See to it that the roots vouch for a server's own keys.

    Raises:
        MetadataError: they are for others.
    """
    _require_key(image_root, "image", (Snapshot.type, Timestamp.type), online.image)
    _require_key(director_root, "director", (Targets.type, Snapshot.type, Timestamp.type), online.director)


def targets_of(bundle: Bundle) -> list[Target]:
    """Every artifact that ``bundle`` vouches for."""
    return [target for role in ROLES for target in targets_in(bundle.roles[role].signed)]


def _extend(
    which: str, known: Sequence[Metadata[Root]], offered: Sequence[Metadata[Root]]
) -> tuple[Metadata[Root], ...]:
    """``known`` with the roots of ``offered`` that come after them, each vouched for by the one before."""
    chain = list(known)
    for root in offered:
        version = root.signed.version
        if version <= len(chain):
            if chain[version - 1].signed != root.signed:
                raise StaleError(
                    _(
                        "{which} root {version} is another one than the server has; hold the ceremony with "
                        "the request that 'fleet key export' gives now"
                    ).format(which=which, version=version)
                )
            continue
        if version != len(chain) + 1:
            raise StaleError(
                _("{which} root {version} leaves out version {due}; import the whole bundle").format(
                    which=which, version=version, due=len(chain) + 1
                )
            )
        for delegator in (*chain[-1:], root):
            verify(delegator.signed, Root.type, root)
        agreed.require_roots(which, [root.signed])
        chain.append(root)
    if not chain:
        raise MetadataError(_("there is no {which} root; hold a ceremony first").format(which=which))
    return tuple(chain)


def _require_key(root: Metadata[Root], which: str, roles: Sequence[str], key: Key) -> None:
    named = root.signed.roles
    if not root.signed.consistent_snapshot or any(named[role].keyids != [key.keyid] for role in roles):
        raise MetadataError(
            _(
                "the {which} root is for other keys than this server's; hold the ceremony with the request "
                "that 'fleet key export' gives now"
            ).format(which=which)
        )


def _is_next(role: str, known: Metadata[Targets] | None, offered: Metadata[Targets]) -> bool:
    """Whether ``offered`` takes the place of ``known``; False where it is the same."""
    if role not in OFFLINE_ROLES:
        raise MetadataError(_("there is no role {role!r} to publish under").format(role=role[:80]))
    if known is None or offered.signed.version > known.signed.version:
        return True
    if offered.signed == known.signed:
        return False
    raise StaleError(
        _("{role} {version} is not above {latest}, which is published; publish on top of that").format(
            role=role, version=offered.signed.version, latest=known.signed.version
        )
    )


def _complete(roles: Mapping[str, Metadata[Targets]]) -> Mapping[str, Metadata[Targets]]:
    for role in OFFLINE_ROLES:
        if role not in roles:
            raise MetadataError(_("the role {role} is missing; import a whole bundle").format(role=role))
    return roles


def _require_signatures(root: Root, roles: Mapping[str, Metadata[Targets]]) -> None:
    top = roles[Targets.type]
    verify(root, Targets.type, top)
    for role in ROLES:
        verify(top.signed, role, roles[role])


def _require_alive(name: str, metadata: Metadata[Any], at: datetime) -> None:
    if metadata.signed.is_expired(at):
        raise MetadataError(_("{name} has expired; have it signed anew").format(name=name))


def _require_content(
    role: str, signed: Targets, known: Metadata[Targets] | None, require_bytes: Callable[[Target], None]
) -> None:
    if role == Targets.type:
        agreed.require_delegations(signed)
        return
    if signed.delegations is not None:
        raise MetadataError(_("{role} delegates further, which no device follows").format(role=role))
    before = known.signed.targets if known else {}
    for target in targets_in(signed):
        if role_of(target.description) != role:
            raise MetadataError(
                _("{role} vouches for {path}, which is not its to vouch for").format(
                    role=role, path=target.path
                )
            )
        former = before.get(target.path)
        if former is not None and former.hashes.get("sha256") != target.sha256:
            raise StaleError(
                _("{path} was published with other content; raise its release").format(path=target.path)
            )
        if former is None:
            require_bytes(target)


def _require_apart(roles: Mapping[str, Metadata[Targets]]) -> None:
    """See to it that no release of a name is another artifact in another role: policies have two."""
    seen: dict[tuple[str, str, int], str] = {}
    for target in (each for role in ROLES for each in targets_in(roles[role].signed)):
        release = (*target.key, target.description.release)
        if seen.setdefault(release, target.path) != target.path:
            raise StaleError(
                _("{path} has the name and the release of {other}; raise its release").format(
                    path=target.path, other=seen[release]
                )
            )
