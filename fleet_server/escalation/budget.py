"""How much devices may ask: what the server was started with, until a proposal has changed it."""

import math
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, func, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Permission
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, read
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.models import Device, EscalationBudget
from fleet_server.errors import BadChange

CHANGE: Final = "escalation.budget"


class Budget(NamedTuple):
    """Questions an hour."""

    device_per_hour: float
    tenant_per_hour: float


class BudgetArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Questions an hour: of one device, and of all devices of the tenant together."""

    device_per_hour: float
    tenant_per_hour: float


def given(config: ServerConfig) -> Budget:
    """What the server was started with."""
    return Budget(config.device_questions_per_hour, config.tenant_questions_per_hour)


def budget(engine: Engine, tenant: str, started_with: Budget) -> Budget:
    """What holds now."""
    with Session(engine) as session:
        return _now(session, tenant, started_with)


def action(started_with: Budget) -> Action:
    """The change of the budget of a server that was started with ``started_with``."""

    def plan(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
        """Raises BadChange where it is no budget, or the one that holds."""
        asked = read(arguments, BudgetArguments)
        wanted = Budget(asked.device_per_hour, asked.tenant_per_hour)
        if not all(0.0 < number < math.inf for number in wanted):
            raise BadChange(_("a budget is a number of questions an hour, above 0"))
        before = _now(session, tenant, started_with)
        if wanted == before:
            raise BadChange(_("these are the budgets already"))
        lines = (
            Difference("device_per_hour", before.device_per_hour, wanted.device_per_hour),
            Difference("tenant_per_hour", before.tenant_per_hour, wanted.tenant_per_hour),
        )
        count = session.exec(select(func.count()).select_from(Device).where(Device.tenant == tenant)).one()

        def carry() -> list[Change]:
            session.merge(EscalationBudget(tenant=tenant, changed_ms=wall_ms(), **wanted._asdict()))
            session.flush()
            return [Change(CHANGE, tenant, before._asdict(), wanted._asdict(), wanted._asdict())]

        return Plan(lines, Radius(count=count, everywhere=True), carry)

    return Action(CHANGE, Permission.CHANGE_PROPOSE, plan)


def _now(session: Session, tenant: str, started_with: Budget) -> Budget:
    row = session.get(EscalationBudget, tenant)
    return Budget(row.device_per_hour, row.tenant_per_hour) if row else started_with
