"""What signed metadata would change, as proposals ask for it: policies, and who may sign at all.

It is published in files, not in the database: publishing the same again changes nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlmodel import Session, func, select
from tuf.api.metadata import Targets

from fleet_protocol.targets import ROLES, Kind
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor, Permission
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, read
from fleet_server.audit.chain import Change, digest_of
from fleet_server.database.models import Device
from fleet_server.errors import BadChange
from fleet_server.updates.office import Office
from fleet_server.updates.online import refusing
from fleet_server.updates.repository import versions
from fleet_signing import ceremony, drafts
from fleet_signing.ceremony import Bundle
from fleet_signing.drafts import Draft
from fleet_signing.metadata import targets_in

PUBLISH: Final = "policy.publish"
CEREMONY: Final = "ceremony.import"

_FREE: Final = frozenset(role for role, kind in ROLES.items() if kind is Kind.MODEL)
"""What is published at once: a model runs nowhere before it is rolled out, and answers without acting."""


class DocumentArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed metadata, as its signer wrote it."""

    document: str


def takes_approval(current: Bundle | None, incoming: Bundle) -> bool:
    """Whether ``incoming`` holds anything new that is not for its signer alone to publish.

    The first ceremony of a server is: nobody trusts anything before it.
    """
    if current is None:
        return False
    return bool(_news(current, incoming).keys() - _FREE)


def says_who_signs(incoming: Bundle) -> bool:
    """Whether ``incoming`` names keys, be it that they are the present ones: that is for a ceremony."""
    return bool(incoming.image_roots or incoming.director_roots or Targets.type in incoming.roles)


def actions(office: Office) -> tuple[Action, ...]:
    """Both kinds of publication of ``office``."""
    return (
        Action(PUBLISH, Permission.ARTIFACT_PUBLISH, _Planner(office, PUBLISH), is_outside=True),
        Action(CEREMONY, Permission.TRUST_MANAGE, _Planner(office, CEREMONY), is_outside=True),
    )


class _Planner:
    """Plans the publication of a document."""

    def __init__(self, office: Office, name: str) -> None:
        self._office = office
        self._name = name

    def __call__(self, session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
        """What would be published.

        Raises:
            UpdatesError: it could not be published.
            BadChange: it is no publication of this kind.
        """
        document = read(arguments, DocumentArguments).document
        with refusing():
            incoming = ceremony.decode_bundle(document.encode())
        if self._name == PUBLISH and says_who_signs(incoming):
            raise BadChange(_("who may sign is published by importing a ceremony: 'fleet key import'"))
        current = self._current()
        self._office.check(incoming)
        count = session.exec(select(func.count()).select_from(Device).where(Device.tenant == tenant)).one()
        before = versions(current)

        def carry() -> list[Change]:
            after = versions(self._office.publish(incoming, Actor.system("proposals")))
            return [Change(self._name, digest_of(document), before, after, after)]

        return Plan(self._diff(current, incoming), Radius(count=count, everywhere=True), carry)

    def _current(self) -> Bundle:
        """What is published; for a policy by the keys of now."""
        current = self._office.repository.current()
        if current is None or self._name == PUBLISH:
            return self._office.repository.require()
        return current

    def _diff(self, current: Bundle, incoming: Bundle) -> tuple[Difference, ...]:
        """Versions, whose keys are other ones, and what is newly vouched for; of a policy every word."""
        lines = [Difference(name, *pair) for name, pair in sorted(_news(current, incoming).items())]
        lines += _keys(current, incoming)
        for role in ROLES:
            if role not in incoming.roles:
                continue
            former = current.roles[role].signed.targets
            for target in targets_in(incoming.roles[role].signed):
                if target.path not in former:
                    lines.append(Difference(target.path, None, target.sha256))
                    if target.description.kind is Kind.POLICY:
                        content = self._office.artifacts.path(target.sha256).read_bytes()
                        lines.append(Difference(f"{target.path} says", None, content.decode()))
        return tuple(lines)


def _keys(current: Bundle, incoming: Bundle) -> list[Difference]:
    """The offline keys that ``incoming``, which could be published, would replace, by their ids."""
    before = drafts.known_keys(current)
    after = drafts.known_keys(drafts.together(Draft(incoming, current)))
    return [
        Difference(f"key {name}", before[name].keyid if name in before else None, key.keyid)
        for name, key in after.items()
        if before.get(name) != key
    ]


def _news(current: Bundle, incoming: Bundle) -> Mapping[str, tuple[int, int]]:
    """The versions of everything that ``incoming`` would bring up."""
    before = versions(current)
    chains = {"image_root": incoming.image_roots, "director_root": incoming.director_roots}
    after = {name: chain[-1].signed.version for name, chain in chains.items() if chain}
    after |= {role: metadata.signed.version for role, metadata in incoming.roles.items()}
    return {
        name: (before.get(name, 0), version)
        for name, version in after.items()
        if version != before.get(name, 0)
    }
