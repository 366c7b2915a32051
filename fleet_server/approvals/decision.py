"""Whether a change may be carried out: who has to agree, who has agreed, and what follows. Pure.

::

    proposed ──▶ approved ──▶ executed
       │             ├──────▶ stale      the world is no longer as it was shown
       │             └──────▶ failed     it was refused, or its words were altered
       ├──▶ rejected    an approver said no
       ├──▶ withdrawn   the proposer took it back
       └──▶ expired     nobody decided in time

Whoever proposes never counts, nor does anybody whose account they can use, and nobody counts twice. What
an approver agreed to is a digest: an approval of other words is none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

LIFE_MS: Final = 7 * 86_400_000
"""How long a proposal waits: over a long weekend, and not until nobody remembers why."""

DEFAULT_APPROVALS: Final = 1
"""Where no rule says anything."""

MOST_APPROVALS: Final = 5
"""More than a rule may ask for would never be found at night."""

NO_SITE: Final = ""
"""The site of devices that stand at none."""


class ProposalState(StrEnum):
    """Where a proposal stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    EXECUTED = "executed"
    STALE = "stale"
    FAILED = "failed"


class Step(StrEnum):
    """What can happen to a proposal."""

    APPROVE = "approve"
    REJECT = "reject"
    WITHDRAW = "withdraw"
    EXPIRE = "expire"
    EXECUTE = "execute"
    OUTDATE = "outdate"
    FAIL = "fail"


_MOVES: Final[Mapping[tuple[ProposalState, Step], ProposalState]] = {
    (ProposalState.PROPOSED, Step.APPROVE): ProposalState.APPROVED,
    (ProposalState.PROPOSED, Step.REJECT): ProposalState.REJECTED,
    (ProposalState.PROPOSED, Step.WITHDRAW): ProposalState.WITHDRAWN,
    (ProposalState.PROPOSED, Step.EXPIRE): ProposalState.EXPIRED,
    (ProposalState.PROPOSED, Step.FAIL): ProposalState.FAILED,
    (ProposalState.APPROVED, Step.EXECUTE): ProposalState.EXECUTED,
    (ProposalState.APPROVED, Step.OUTDATE): ProposalState.STALE,
    (ProposalState.APPROVED, Step.FAIL): ProposalState.FAILED,
}

Rules = Mapping[tuple[str, str], int]
"""Approvals that a change takes, by site and action; an empty one means all others."""


class Vote(NamedTuple):
    """One person's word; ``may_approve`` whether they still may, everywhere, and are not :func:`beholden`."""

    person: str
    agrees: bool
    sha256: str
    may_approve: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A proposal as the decision sees it; times in ms since 1970."""

    state: ProposalState
    proposer: str
    sha256: str
    needed: int
    expires_ms: int


def next_state(state: ProposalState, step: Step) -> ProposalState | None:
    """Where ``step`` leads from ``state``; None where it cannot be taken."""
    return _MOVES.get((state, step))


def state_at(question: Question, now_ms: int) -> ProposalState:
    """Where it stands at ``now_ms``: what waits too long has expired."""
    if question.state is ProposalState.PROPOSED and now_ms >= question.expires_ms:
        return ProposalState.EXPIRED
    return question.state


def approvals_needed(rules: Rules, action: str, sites: Iterable[str]) -> int:
    """How many approvals ``action`` takes: as many as the strictest of ``sites`` asks for."""
    return max((_of_site(rules, action, site) for site in sites), default=_of_site(rules, action, NO_SITE))


def beholden(person: str, given: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Whose account ``person`` can use, also by way of others, by who has ``given`` whom theirs."""
    given = tuple(given)
    known: frozenset[str] = frozenset()
    new = frozenset({person})
    while new:
        known |= new
        new = frozenset(whom for who, whom in given if who in new) - known
    return known - {person}


def agreeing(question: Question, votes: Iterable[Vote]) -> frozenset[str]:
    """The people whose approval counts."""
    return frozenset(
        vote.person
        for vote in votes
        if vote.agrees
        and vote.may_approve
        and vote.sha256 == question.sha256
        and vote.person != question.proposer
    )


def verdict(question: Question, votes: Iterable[Vote], now_ms: int) -> Step | None:
    """What is due for a proposal that waits: nothing, its end, or its execution."""
    votes = tuple(votes)
    if question.state is not ProposalState.PROPOSED:
        return None
    if state_at(question, now_ms) is ProposalState.EXPIRED:
        return Step.EXPIRE
    if any(not vote.agrees for vote in votes):
        return Step.REJECT
    return Step.APPROVE if len(agreeing(question, votes)) >= question.needed else None


def _of_site(rules: Rules, action: str, site: str) -> int:
    """A site's own word comes before that for all sites; one on the action before that on all others."""
    places = ((site, action), (site, ""), (NO_SITE, action), (NO_SITE, ""))
    return next((rules[place] for place in places if place in rules), DEFAULT_APPROVALS)
