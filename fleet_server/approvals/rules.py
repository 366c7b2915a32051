"""How many approvals a change takes at a site: the rules, and their own change, which is a change too."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Permission, Scope
from fleet_server.approvals.decision import MOST_APPROVALS, NO_SITE
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, read
from fleet_server.audit.chain import Change
from fleet_server.database.models import ApprovalRule, Device, Site
from fleet_server.devices.scope import ALL, known_sites
from fleet_server.errors import BadChange

SET: Final = "approval_rule.set"


class RuleArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule; an empty site or action means all others. ``approvals`` None takes the rule away."""

    site: str
    action: str
    approvals: int | None


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule as people see it; an empty site or action means all others."""

    site: str
    action: str
    approvals: int


def list_rules(engine: Engine, tenant: str, scopes: Collection[Scope] = ALL) -> list[RuleView]:
    """Every rule by site and action, without those for sites that nobody within ``scopes`` knows."""
    query = select(ApprovalRule).where(
        ApprovalRule.tenant == tenant,
        (col(ApprovalRule.site) == NO_SITE) | known_sites(col(ApprovalRule.site), tenant, scopes),
    )
    with Session(engine) as session:
        rows = session.exec(query.order_by(col(ApprovalRule.site), col(ApprovalRule.action)))
        return [RuleView(row.site, row.action, row.approvals) for row in rows]


def action(known: frozenset[str]) -> Action:
    """The change of a rule about one of the actions ``known``, or about itself."""

    def plan(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
        """Raises BadChange where it is no rule, or the one that holds."""
        asked = read(arguments, RuleArguments)
        _check(session, tenant, asked, known | {SET})
        row = session.get(ApprovalRule, (tenant, asked.site, asked.action), with_for_update=True)
        before = row.approvals if row else None
        if before == asked.approvals:
            raise BadChange(_("this is the rule already"))
        line = Difference(f"{asked.site or '*'} {asked.action or '*'}", before, asked.approvals)

        def carry() -> list[Change]:
            if row is not None and asked.approvals is None:
                session.delete(row)
            elif asked.approvals is not None:
                session.merge(
                    ApprovalRule(
                        tenant=tenant, site=asked.site, action=asked.action, approvals=asked.approvals
                    )
                )
            session.flush()
            detail = {"site": asked.site, "action": asked.action, "approvals": asked.approvals}
            return [Change(SET, asked.site or tenant, before, asked.approvals, detail)]

        return Plan((line,), _radius(session, tenant, asked.site), carry)

    return Action(SET, Permission.TRUST_MANAGE, plan)


def about(arguments: Arguments, known: Iterable[str]) -> tuple[str, ...]:
    """The actions whose rule would change, of those that are ``known``; a rule for all is about each."""
    named = read(arguments, RuleArguments).action
    return (named,) if named else tuple(known)


def _check(session: Session, tenant: str, asked: RuleArguments, known: frozenset[str]) -> None:
    if asked.approvals is not None and not 0 <= asked.approvals <= MOST_APPROVALS:
        raise BadChange(_("a rule asks for 0 to {most} approvals").format(most=MOST_APPROVALS))
    if asked.action and asked.action not in known:
        raise BadChange(
            _("there is no action {name!r}; there are: {known}").format(
                name=asked.action[:80], known=", ".join(sorted(known))
            )
        )
    if asked.site and session.get(Site, (tenant, asked.site)) is None:
        raise BadChange(_("there is no site {site!r}").format(site=asked.site[:80]))


def _radius(session: Session, tenant: str, site: str) -> Radius:
    query = select(func.count()).select_from(Device).where(Device.tenant == tenant)
    if site == NO_SITE:
        return Radius(count=session.exec(query).one(), everywhere=True)
    return Radius((site,), session.exec(query.where(Device.site == site)).one())
