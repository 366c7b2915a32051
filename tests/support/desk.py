"""Where changes are proposed and decided on, for tests: a fleet of four at two sites, and its people."""

from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_server.access.roles import Caller, RoleName
from fleet_server.approvals.actions import open_proposals
from fleet_server.approvals.pages import ProposalPage, get_proposal
from fleet_server.approvals.proposals import Proposals
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import (
    ApprovalRule,
    AuditRecord,
    Rollout,
)
from fleet_server.devices.groups import set_group
from tests.support.actors import SOMEBODY
from tests.support.people import add_person, caller
from tests.support.rollouts import TENANT, add_fleet, give, publish, tell, update

START = {
    "group": "all",
    "kind": "model",
    "name": "leak",
    "release": 2,
    "rules": {"waves": ["100%"]},
    "reason": "better",
}
BUDGET = {"device_per_hour": 10.0, "tenant_per_hour": 100.0}


class Desk:
    """Proposals of a fleet of four at two sites, and the people who decide on them."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self.engine = engine
        self.proposals: Proposals = open_proposals(engine, config)
        self.olga = self.person("olga", RoleName.OPERATOR)
        self.anna = self.person("anna")
        self.ben = self.person("ben")
        self.root = self.person("root", RoleName.ADMIN)

    def person(self, name: str, role: str = RoleName.APPROVER, **where: str) -> Caller:
        return caller(self.engine, add_person(self.engine, name, role, **where))

    def propose(
        self, action: str = "rollout.start", arguments: dict[str, Any] = START, who: Caller | None = None
    ) -> str:
        return self.proposals.propose(who or self.olga, action, arguments, "because")

    def page(self, identity: str) -> ProposalPage:
        return get_proposal(self.engine, TENANT, identity)

    def state(self, identity: str) -> str:
        return self.page(identity).proposal.state

    def approve(self, who: Caller, identity: str) -> str:
        self.proposals.approve(who, identity, self.page(identity).proposal.sha256, "seen")
        return self.state(identity)

    def rule(self, approvals: int, site: str = "", action: str = "") -> None:
        with writing(self.engine) as session:
            session.merge(ApprovalRule(tenant=TENANT, site=site, action=action, approvals=approvals))

    def audited(self) -> list[str]:
        """What was recorded since the groups were saved."""
        query = select(AuditRecord.action).where(AuditRecord.action != "group.set")
        with Session(self.engine) as session:
            return list(session.exec(query.order_by(col(AuditRecord.number))))

    def change(self, table: Any, key: tuple[str, ...], **fields: Any) -> None:
        with writing(self.engine) as session:
            row = session.get_one(table, (TENANT, *key))
            for name, value in fields.items():
                setattr(row, name, value)
            session.add(row)

    def rollouts(self) -> list[str]:
        with Session(self.engine) as session:
            return list(session.exec(select(Rollout.id)))


def furnished(engine: Engine, config: ServerConfig) -> Desk:
    """The desk with its fleet, three releases of a model, and groups; one device runs the first release."""
    add_fleet(engine, 2, site="north")
    add_fleet(engine, 2, site="south", prefix="pump")
    publish(engine, 1, 2, 3)
    set_group(engine, TENANT, SOMEBODY, "all", "")
    set_group(engine, TENANT, SOMEBODY, "north", "site=north")
    give(engine, ["gw-00"], 1)
    tell(engine, "gw-00", update(1, "committed"))
    return Desk(engine, config)
