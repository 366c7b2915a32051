"""Every change that has to be proposed. What one does is told where its journey is."""

from sqlalchemy import Engine

from fleet_server.approvals import rules
from fleet_server.approvals.plans import Action
from fleet_server.approvals.proposals import Proposals
from fleet_server.config import ServerConfig
from fleet_server.escalation import budget
from fleet_server.identity import mass_revocation
from fleet_server.updates import changes, publications
from fleet_server.updates.office import open_office


def open_proposals(engine: Engine, config: ServerConfig) -> Proposals:
    """The proposals of the server that ``config`` describes."""
    actions: tuple[Action, ...] = (
        *changes.ACTIONS,
        *publications.actions(open_office(engine, config)),
        budget.action(budget.given(config)),
        mass_revocation.ACTION,
    )
    names = frozenset(action.name for action in actions)
    known = {action.name: action for action in (*actions, rules.action(names))}
    return Proposals(engine, config.tenant, known)
