"""Whether roots and targets ask every role for the keys and the signatures that are agreed on. Pure.

A server asks before it publishes, a person's key before it signs: metadata that is signed well enough can
still name one key twice under two ids, one key more than people are shown, or fewer signatures.
"""

from collections.abc import Iterable, Mapping

from securesystemslib.signer import Key
from tuf.api.metadata import Role, Root, Snapshot, Targets, Timestamp

from fleet_protocol.targets import ROLES
from fleet_protocol.texts import _
from fleet_signing.errors import KeyFileError, MetadataError
from fleet_signing.image import delegating
from fleet_signing.keys import public_key
from fleet_signing.roles import HOLDERS


def require_roots(which: str, roots: Iterable[Root]) -> None:
    """See to it that ``roots`` of the repository ``which`` (``image``, ``director``) are as agreed.

    Raises:
        MetadataError: one of them is not.
    """
    for root in roots:
        held = (Root.type, Targets.type) if which == "image" else (Root.type,)
        _require_keys(root.keys)
        for role in held:
            _require_holders(role, root.roles[role], root.keys)
        for role in {Targets.type, Snapshot.type, Timestamp.type}.difference(held):
            if len(root.roles[role].keyids) != 1 or root.roles[role].keyids[0] not in root.keys:
                raise MetadataError(
                    _("the {which} root names no server's key for {role}; hold the ceremony again").format(
                        which=which, role=role
                    )
                )


def require_delegations(signed: Targets) -> None:
    """See to it that the top-level targets delegate as agreed, and vouch for nothing themselves.

    Raises:
        MetadataError: they do not.
    """
    found = signed.delegations
    roles = found.roles if found else None
    if found is None or not roles or signed.targets or roles.keys() != ROLES.keys():
        raise MetadataError(_("the targets do not delegate to {roles} alone").format(roles=", ".join(ROLES)))
    agreed = delegating({role: [] for role in roles}, 1, signed.expires).delegations
    assert agreed is not None  # noqa: S101 - just made
    assert agreed.roles is not None  # noqa: S101
    _require_keys(found.keys)
    for role, delegated in roles.items():
        if delegated.paths != agreed.roles[role].paths or not delegated.terminating:
            raise MetadataError(_("{role} is given other paths than its own").format(role=role))
        _require_holders(role, delegated, found.keys)


def _require_holders(role: str, asked: Role, keys: Mapping[str, Key]) -> None:
    """See to it that ``asked`` has as many keys as ``role`` has holders, and asks enough of them."""
    holders = HOLDERS[role]
    if asked.threshold < holders.threshold:
        raise MetadataError(
            _("{role} takes {least} signatures at least; the metadata asks for {found}").format(
                role=role, least=holders.threshold, found=asked.threshold
            )
        )
    if len(asked.keyids) != len(holders.keys) or not keys.keys() >= {*asked.keyids}:
        raise MetadataError(
            _("{role} has the keys {names}, and the metadata names {found} of them").format(
                role=role, names=", ".join(holders.keys), found=len(keys.keys() & {*asked.keyids})
            )
        )


def _require_keys(keys: Mapping[str, Key]) -> None:
    """See to it that every key goes by the id that is made of it: else one could sign for two."""
    for keyid, key in keys.items():
        try:
            own = public_key(str(key.keyval.get("public"))).keyid
        except KeyFileError as error:
            raise MetadataError(str(error)) from None
        if own != keyid:
            raise MetadataError(
                _("a key goes by the id {found}, and has the id {own}; one key counts once").format(
                    found=ascii(keyid)[:70], own=own
                )
            )
