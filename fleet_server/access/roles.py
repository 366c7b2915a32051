"""Who may do what, and where. Pure: rights are values, and a question about them has one answer.

A person has grants: a role, at a site or on devices with a tag, or everywhere. A token narrows them. What a
route needs is one :class:`Permission`; a :class:`Caller` says whether it is there, and for which devices.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

SYSTEM_ROLE: Final = "system"
DEVICE_ROLE: Final = "device"
SHELL_ROLE: Final = "shell"
STRANGER_ROLE: Final = "stranger"
"""Who acts without an account: the server, a device, whoever has a shell on it, whoever is not known."""


class Permission(StrEnum):
    """A right, as a route asks for it."""

    SELF = "self"
    """One's own account and tokens."""
    FLEET_READ = "fleet.read"
    DEVICE_ENROLL = "device.enroll"
    """Add, invite, approve and replace devices, and put tags on them."""
    DEVICE_REVOKE = "device.revoke"
    GROUP_WRITE = "group.write"
    ARTIFACT_PUBLISH = "artifact.publish"
    """Upload bytes and publish what was signed offline; it runs nowhere before it is rolled out."""
    CHANGE_PROPOSE = "change.propose"
    CHANGE_APPROVE = "change.approve"
    CHANGE_STOP = "change.stop"
    """Pause and abort: whoever sees harm may stop it without asking."""
    PEOPLE_MANAGE = "people.manage"
    TRUST_MANAGE = "trust.manage"
    """Key ceremonies and how many approvals a change takes."""
    AUDIT_READ = "audit.read"
    BREAK_GLASS = "break.glass"


class RoleName(StrEnum):
    """What a person can be."""

    VIEWER = "viewer"
    TECHNICIAN = "technician"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


_VIEWER: Final = frozenset({Permission.SELF, Permission.FLEET_READ})
_TECHNICIAN: Final = _VIEWER | {Permission.DEVICE_ENROLL}
_OPERATOR: Final = _TECHNICIAN | {
    Permission.DEVICE_REVOKE,
    Permission.GROUP_WRITE,
    Permission.ARTIFACT_PUBLISH,
    Permission.CHANGE_PROPOSE,
    Permission.CHANGE_STOP,
}
_APPROVER: Final = _VIEWER | {Permission.CHANGE_APPROVE, Permission.CHANGE_STOP, Permission.AUDIT_READ}

RIGHTS: Final[dict[RoleName, frozenset[Permission]]] = {
    RoleName.VIEWER: _VIEWER,
    RoleName.TECHNICIAN: _TECHNICIAN,
    RoleName.OPERATOR: _OPERATOR,
    RoleName.APPROVER: _APPROVER,
    RoleName.ADMIN: frozenset(Permission),
}
"""What each role may do. That nobody approves what they have proposed themselves holds for all."""


class Scope(NamedTuple):
    """Where a right holds: at a site, on devices with a tag, both at once; empty narrows nothing."""

    site: str = ""
    tag: str = ""

    def holds(self, site: str | None, tags: Collection[str]) -> bool:
        """Whether a device at ``site`` with ``tags`` is within it."""
        return self.site in ("", site) and (not self.tag or self.tag in tags)

    def within(self, other: "Scope") -> "Scope | None":
        """What is left of it inside ``other``; None for nothing. Two tags have nothing in common."""
        if (self.site and other.site and self.site != other.site) or (
            self.tag and other.tag and self.tag != other.tag
        ):
            return None
        return Scope(self.site or other.site, self.tag or other.tag)


EVERYWHERE: Final = Scope()


class Grant(NamedTuple):
    """A role with what of its rights is left, and where it holds."""

    role: RoleName
    rights: frozenset[Permission]
    scope: Scope

    @staticmethod
    def of(role: RoleName, scope: Scope = EVERYWHERE) -> "Grant":
        """All rights of ``role`` at ``scope``."""
        return Grant(role, RIGHTS[role], scope)


class Actor(NamedTuple):
    """Who did something, as it stands in the audit."""

    person: str
    role: str
    source: str

    @staticmethod
    def system(part: str) -> "Actor":
        """The server itself; ``part`` names which of its services."""
        return Actor(part, SYSTEM_ROLE, "")

    @staticmethod
    def device(device: str, source: str) -> "Actor":
        """A device, heard from the address ``source``."""
        return Actor(device, DEVICE_ROLE, source)

    @staticmethod
    def shell(user: str) -> "Actor":
        """The Unix user ``user``, who has a shell on the server and may read its data folder."""
        return Actor(user, SHELL_ROLE, "localhost")

    @staticmethod
    def stranger(source: str) -> "Actor":
        """Somebody at the address ``source`` who was not recognized."""
        return Actor("", STRANGER_ROLE, source)


@dataclass(frozen=True, slots=True)
class Caller:
    """A person who was recognized, by which token, from which address, and what they may do."""

    tenant: str
    person: str
    grants: tuple[Grant, ...]
    token_sha256: str
    source: str

    def may(self, permission: Permission) -> bool:
        """Whether they have the right anywhere."""
        return any(permission in grant.rights for grant in self.grants)

    def scopes(self, permission: Permission) -> tuple[Scope, ...]:
        """Where they have it; ``(EVERYWHERE,)`` where nothing narrows it, none where they have it nowhere."""
        scopes = {grant.scope for grant in self.grants if permission in grant.rights}
        return (EVERYWHERE,) if EVERYWHERE in scopes else tuple(sorted(scopes))

    def may_everywhere(self, permission: Permission) -> bool:
        """Whether they have the right with nothing that narrows it: for what touches the whole tenant."""
        return EVERYWHERE in self.scopes(permission)

    def may_on(self, permission: Permission, site: str | None, tags: Collection[str]) -> bool:
        """Whether they have the right on a device at ``site`` with ``tags``."""
        return any(scope.holds(site, tags) for scope in self.scopes(permission))

    def actor(self, permission: Permission) -> Actor:
        """Who they are in the audit, in the least role that gives the right."""
        order = list(RoleName)
        roles = [grant.role for grant in self.grants if permission in grant.rights]
        return Actor(self.person, min(roles, key=order.index, default=""), self.source)


def narrowed(grants: Iterable[Grant], role: RoleName | None, scope: Scope) -> tuple[Grant, ...]:
    """``grants`` as a token leaves them that is for ``role`` at most, and only at ``scope``."""
    left = []
    for grant in grants:
        rights = grant.rights if role is None else grant.rights & RIGHTS[role]
        where = grant.scope.within(scope)
        if rights and where is not None:
            left.append(Grant(grant.role, rights, where))
    return tuple(left)
