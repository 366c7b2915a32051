"""Proposals as people see them: the list, and one proposal with its diff, its radius and who said what.

Of devices that somebody does not see, no proposal tells them: one that reaches no others is not there.
``seer`` is who looks; None is the server itself, which sees everything.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Caller, Permission
from fleet_server.approvals.decision import ProposalState, agreeing, state_at
from fleet_server.approvals.plans import Radius
from fleet_server.approvals.proposals import question_of, radius_of, votes_of
from fleet_server.approvals.standing import seen_of
from fleet_server.clock import wall_ms
from fleet_server.database.models import Approval, BreakGlass, Proposal
from fleet_server.errors import NoProposal

_AT_ONCE: Final = 100
"""Rows that are fetched at a time: whoever sees few of them makes the server look through many."""


@dataclass(frozen=True, slots=True)
class ProposalSummary:
    """A proposal in a list. ``approvals`` of ``needed`` count; it reaches ``devices`` at ``sites``.

    ``sha256`` is what an approver agrees to.
    """

    id: str
    action: str
    state: str
    outcome: str
    reason: str
    proposer: str
    needed: int
    approvals: int
    devices: int
    sites: list[str]
    everywhere: bool
    sha256: str
    created_ms: int
    expires_ms: int
    decided_ms: int | None


@dataclass(frozen=True, slots=True)
class DiffLine:
    """What is changed of one thing; None for nothing."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class ReachedDevice:
    """A device that it reaches: the release that it is to have, and the one that it said it runs."""

    id: str
    site: str
    has: int | None
    runs: int | None


@dataclass(frozen=True, slots=True)
class VoteView:
    """What somebody has said; ``counts`` whether it still does."""

    person: str
    agrees: bool
    reason: str
    given_ms: int
    counts: bool


@dataclass(frozen=True, slots=True)
class BreakGlassView:
    """Who carried it out without approvals and why, and who has taken note of that."""

    person: str
    reason: str
    broken_ms: int
    acknowledged_by: str
    acknowledged_ms: int | None


@dataclass(frozen=True, slots=True)
class ProposalPage:
    """Everything that an approver has to see."""

    proposal: ProposalSummary
    diff: list[DiffLine]
    reached: list[ReachedDevice]
    votes: list[VoteView]
    break_glass: BreakGlassView | None


@dataclass(frozen=True, slots=True)
class Answerable:
    """Who asked for something, and who agreed to it."""

    asked_by: str
    approved_by: tuple[str, ...]


def list_proposals(
    engine: Engine, tenant: str, after: str, limit: int, *, is_open: bool, seer: Caller | None = None
) -> list[ProposalSummary]:
    """At most ``limit`` proposals, the newest first, from behind ``after`` on; or only those that wait.

    Raises:
        NoProposal: there is no proposal ``after``.
    """
    newest_first = (col(Proposal.created_ms).desc(), col(Proposal.id).desc())
    query = select(Proposal).where(Proposal.tenant == tenant)
    if is_open:
        query = query.where(Proposal.state == ProposalState.PROPOSED, Proposal.expires_ms > wall_ms())
    with Session(engine) as session:
        if after:
            last = _require(session, tenant, after)
            query = query.where(
                (col(Proposal.created_ms) < last.created_ms)
                | ((col(Proposal.created_ms) == last.created_ms) & (col(Proposal.id) < last.id))
            )
        rows = session.exec(query.order_by(*newest_first).execution_options(yield_per=_AT_ONCE))
        seen = ((row, _seen(session, seer, row)) for row in rows)
        shown = (_summary(session, row, radius) for row, radius in seen if radius is not None)
        return list(islice(shown, limit))


def get_proposal(engine: Engine, tenant: str, identity: str, seer: Caller | None = None) -> ProposalPage:
    """Everything about one proposal that ``seer`` sees.

    Raises:
        NoProposal: there is none.
    """
    with Session(engine) as session:
        row = _require(session, tenant, identity)
        radius = _seen(session, seer, row)
        if radius is None:
            raise _absent(identity)
        counting = agreeing(question_of(row), votes_of(session, row))
        broken = session.get(BreakGlass, (tenant, identity))
        return ProposalPage(
            proposal=_summary(session, row, radius),
            diff=[DiffLine(*line) for line in json.loads(row.change)["diff"]],
            reached=[ReachedDevice(**asdict(device)) for device in radius.devices],
            votes=[
                VoteView(one.person, one.agrees, one.reason, one.given_ms, one.person in counting)
                for one in _approvals(session, row)
            ],
            break_glass=BreakGlassView(**broken.model_dump(exclude={"tenant", "proposal"}))
            if broken
            else None,
        )


def answerable(session: Session, tenant: str, identity: str) -> Answerable | None:
    """Who asked for what the proposal ``identity`` has brought, and who agreed; None where there is none."""
    row = session.get(Proposal, (tenant, identity))
    if row is None:
        return None
    people = [one.person for one in _approvals(session, row) if one.agrees]
    broken = session.get(BreakGlass, (tenant, identity))
    return Answerable(row.proposer, (*people, *([broken.person] if broken else [])))


def _approvals(session: Session, row: Proposal) -> Iterable[Approval]:
    return session.exec(
        select(Approval)
        .where(Approval.tenant == row.tenant, Approval.proposal == row.id)
        .order_by(col(Approval.given_ms), col(Approval.person))
    ).all()


def _require(session: Session, tenant: str, identity: str) -> Proposal:
    row = session.get(Proposal, (tenant, identity))
    if row is None:
        raise _absent(identity)
    return row


def _absent(identity: str) -> NoProposal:
    return NoProposal(_("there is no proposal {id!r}").format(id=identity[:80]))


def _seen(session: Session, seer: Caller | None, row: Proposal) -> Radius | None:
    """What ``seer`` sees of what it reaches; None for nothing."""
    radius = radius_of(row)
    return radius if seer is None else seen_of(session, seer, Permission.FLEET_READ, radius)


def _summary(session: Session, row: Proposal, radius: Radius) -> ProposalSummary:
    question = question_of(row)
    return ProposalSummary(
        id=row.id,
        action=row.action,
        state=state_at(question, wall_ms()),
        outcome=row.outcome,
        reason=row.reason,
        proposer=row.proposer,
        needed=row.needed,
        approvals=len(agreeing(question, votes_of(session, row))),
        devices=radius.count,
        sites=list(radius.sites),
        everywhere=radius.everywhere,
        sha256=row.sha256,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        decided_ms=row.decided_ms,
    )
