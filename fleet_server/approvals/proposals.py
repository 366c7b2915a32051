"""Proposals in the database: asked for, agreed to, and carried out exactly once.

Every step is one transaction that holds the proposal's row. The one in which the last approval comes
plans the change anew, holds it against what was agreed to, and makes it, with its audit records: killed
at any moment, none of that has happened or all of it. What is not made in the database (``is_outside``)
is approved in one transaction, made, and noted as done in another; a server that dies between makes it
again at its next start, which changes nothing then.
"""

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor, Caller, Permission
from fleet_server.approvals import rules
from fleet_server.approvals.decision import (
    LIFE_MS,
    NO_SITE,
    ProposalState,
    Question,
    Step,
    Vote,
    approvals_needed,
    next_state,
    state_at,
    verdict,
)
from fleet_server.approvals.plans import (
    Action,
    Arguments,
    Plan,
    Radius,
    Touched,
    change_text,
    differs,
    radius_text,
    seal,
)
from fleet_server.approvals.standing import Span, puppets_of, reaches, standing, touches
from fleet_server.audit.chain import Change, append
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Approval, ApprovalRule, BreakGlass, Proposal, Site
from fleet_server.errors import BadChange, NoProposal, NotYours, ProposalConflict, ServerError, Stale

_OUTCOME: Final = 300
_ID_BYTES: Final = 4

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proposals:
    """The proposals of one tenant, and what there is to propose."""

    engine: Engine
    tenant: str
    actions: Mapping[str, Action]

    def propose(self, caller: Caller, action: str, arguments: Arguments, reason: str) -> str:
        """Ask for a change; the proposal's id. Where no approval is needed, it is made at once.

        Raises:
            NotYours: the caller lacks the right on some of what it reaches.
            BadChange: there is no such action, or the change would change nothing.
            ServerError: it makes no sense, in the words of its journey.
        """
        kind = self._action(action)
        identity, now_ms = secrets.token_hex(_ID_BYTES), wall_ms()
        actor = caller.actor(kind.permission)
        with writing(self.engine) as session:
            self._expire(session, now_ms)
            plan = kind.plan(session, self.tenant, identity, arguments)
            self._require_reach(session, caller, kind.permission, plan.radius)
            change, radius = change_text(action, arguments, plan), radius_text(plan.radius)
            row = Proposal(
                tenant=self.tenant,
                id=identity,
                proposer=caller.person,
                action=action,
                change=change,
                sha256=seal(identity, caller.person, reason, change, radius),
                radius=radius,
                reason=reason,
                needed=self._needed(session, action, arguments, plan.radius),
                state=ProposalState.PROPOSED,
                created_ms=now_ms,
                expires_ms=now_ms + LIFE_MS,
            )
            session.add(row)
            session.flush()
            asked = {"action": action, "sha256": row.sha256, "reason": reason, "needed": row.needed}
            self._note(session, actor, "proposal.make", row, asked)
            self._decide(session, row, actor)
        self._carry_outside(identity, actor)
        return identity

    def approve(self, caller: Caller, identity: str, sha256: str, reason: str) -> None:
        """Agree to what has the digest ``sha256``; the last approval that is needed carries it out.

        Raises:
            NoProposal: there is none.
            NotYours: the caller proposed it, has their account from the proposer, or lacks the right on some
                of what it reaches.
            ProposalConflict: it is decided, it says something else, or the caller has approved it before.
        """
        with writing(self.engine) as session:
            row = self._open(session, identity)
            actor = caller.actor(Permission.CHANGE_APPROVE)
            self._require_another(caller, row)
            self._require_reach(session, caller, Permission.CHANGE_APPROVE, radius_of(row))
            self._require_independent(session, caller, row.proposer, Span(row.created_ms, None))
            _require_same(row, sha256)
            self._vote(session, caller, row, reason, agrees=True)
            self._note(session, actor, "proposal.approve", row, {"sha256": sha256, "reason": reason})
            self._decide(session, row, actor)
        self._carry_outside(identity, actor)

    def reject(self, caller: Caller, identity: str, reason: str) -> None:
        """Say no, which ends it; the right on any of what it reaches is enough. Raises as :meth:`approve`."""
        with writing(self.engine) as session:
            row = self._open(session, identity)
            actor = caller.actor(Permission.CHANGE_APPROVE)
            self._require_another(caller, row)
            if not touches(session, caller, Permission.CHANGE_APPROVE, radius_of(row)):
                raise _no_reach(caller, Permission.CHANGE_APPROVE)
            self._vote(session, caller, row, reason, agrees=False)
            self._note(session, actor, "proposal.reject", row, {"reason": reason})
            self._move(row, Step.REJECT, reason)

    def withdraw(self, caller: Caller, identity: str) -> None:
        """Take back what one has proposed oneself. Raises as :meth:`approve`."""
        with writing(self.engine) as session:
            row = self._open(session, identity)
            if row.proposer != caller.person:
                raise NotYours(
                    _("{person} has proposed it: only they withdraw it; an approver rejects it").format(
                        person=row.proposer
                    )
                )
            self._note(session, caller.actor(Permission.CHANGE_PROPOSE), "proposal.withdraw", row)
            self._move(row, Step.WITHDRAW)

    def break_glass(self, caller: Caller, identity: str, reason: str) -> None:
        """Carry it out without approvals; the server is unwell until somebody else acknowledges that.

        It is held against the world as any other. Raises as :meth:`approve`.
        """
        actor = caller.actor(Permission.BREAK_GLASS)
        with writing(self.engine) as session:
            row = self._open(session, identity)
            self._require_reach(session, caller, Permission.BREAK_GLASS, radius_of(row))
            broken = BreakGlass(
                tenant=self.tenant,
                proposal=row.id,
                person=caller.person,
                reason=reason,
                broken_ms=wall_ms(),
            )
            session.add(broken)
            session.flush()
            self._note(session, actor, "proposal.break_glass", row, {"sha256": row.sha256, "reason": reason})
            self._carry(session, row, actor)
            state = row.state
        _log.critical(
            "%s broke the glass for proposal %s, now %s: %s", caller.person, identity, state, reason
        )
        self._carry_outside(identity, actor)

    def acknowledge(self, caller: Caller, identity: str) -> None:
        """Take note that somebody else has broken the glass.

        Raises:
            NoProposal: nobody has.
            NotYours: the caller has done it, has their account from who did, or lacks the right on some of
                what it reaches.
            ProposalConflict: it was acknowledged before.
        """
        with writing(self.engine) as session:
            broken = session.get(BreakGlass, (self.tenant, identity), with_for_update=True)
            if broken is None:
                raise NoProposal(
                    _("nobody has broken the glass for a proposal {id!r}").format(id=identity[:80])
                )
            if broken.person == caller.person:
                raise NotYours(
                    _("{person} has broken the glass: somebody else acknowledges it").format(
                        person=broken.person
                    )
                )
            reached = radius_of(session.get_one(Proposal, (self.tenant, identity)))
            self._require_reach(session, caller, Permission.CHANGE_APPROVE, reached)
            self._require_independent(session, caller, broken.person, Span(broken.broken_ms, None))
            if broken.acknowledged_ms is not None:
                raise ProposalConflict(
                    _("{person} has acknowledged it already").format(person=broken.acknowledged_by)
                )
            broken.acknowledged_by, broken.acknowledged_ms = caller.person, wall_ms()
            done = Change("proposal.acknowledge", identity, detail={"broken_by": broken.person})
            append(session, self.tenant, caller.actor(Permission.CHANGE_APPROVE), done)

    def settle(self, actor: Actor) -> None:
        """Make what was approved and may not have been made before the server died."""
        with Session(self.engine) as session:
            approved = session.exec(
                select(Proposal.id)
                .where(Proposal.tenant == self.tenant, Proposal.state == ProposalState.APPROVED)
                .order_by(col(Proposal.decided_ms))
            ).all()
        for identity in approved:
            self._carry_outside(identity, actor)

    def _open(self, session: Session, identity: str) -> Proposal:
        """The proposal's row, held; it can still be decided on."""
        row = session.get(Proposal, (self.tenant, identity), with_for_update=True)
        if row is None:
            raise NoProposal(_("there is no proposal {id!r}").format(id=identity[:80]))
        state = state_at(question_of(row), wall_ms())
        if state is not ProposalState.PROPOSED:
            raise ProposalConflict(
                _("proposal {id} is {state}; propose it again if it is still wanted").format(
                    id=row.id, state=state
                )
            )
        return row

    def _decide(self, session: Session, row: Proposal, actor: Actor) -> None:
        """Carry it out where enough people agree by the rules of now, were they stricter than before."""
        arguments = json.loads(row.change)["arguments"]
        row.needed = max(row.needed, self._needed(session, row.action, arguments, radius_of(row)))
        votes = votes_of(session, row)
        if verdict(question_of(row), votes, wall_ms()) is Step.APPROVE:
            self._carry(session, row, actor)

    def _carry(self, session: Session, row: Proposal, actor: Actor) -> None:
        """Make the change as it was agreed to; where the world has moved, say so and do nothing."""
        self._move(row, Step.APPROVE)
        if row.sha256 != seal(row.id, row.proposer, row.reason, row.change, row.radius):
            self._end(session, row, actor, Step.FAIL, _("its words were altered after it was proposed"))
            return
        action = self._action(row.action)
        try:
            plan = action.plan(session, self.tenant, row.id, json.loads(row.change)["arguments"])
        except ServerError as error:
            self._end(session, row, actor, Step.OUTDATE, str(error))
            return
        if field := differs(row.change, row.radius, plan):
            why = _("'{field}' is no longer as it was shown; propose it anew").format(field=field)
            self._end(session, row, actor, Step.OUTDATE, why)
        elif not action.is_outside:
            self._make(session, row, plan, actor)

    def _make(self, session: Session, row: Proposal, plan: Plan, actor: Actor) -> None:
        try:
            with session.begin_nested():
                changes = plan.carry()
        except ServerError as error:
            self._end(session, row, actor, Step.FAIL, str(error))
        else:
            self._done(session, row, changes, actor)

    def _carry_outside(self, identity: str, actor: Actor) -> None:
        """Make an approved change that no transaction holds, and write down what came of it."""
        with Session(self.engine) as session:
            row = session.get_one(Proposal, (self.tenant, identity))
            if row.state != ProposalState.APPROVED:
                return
            plan = self._planned(session, row)
            step, outcome, changes = _attempt(plan) if isinstance(plan, Plan) else plan
        with writing(self.engine) as session:
            row = session.get_one(Proposal, (self.tenant, identity), with_for_update=True)
            if row.state != ProposalState.APPROVED:
                return
            if step is Step.EXECUTE:
                self._done(session, row, changes, actor)
            else:
                self._end(session, row, actor, step, outcome)

    def _planned(self, session: Session, row: Proposal) -> "Plan | _Attempt":
        try:
            arguments = json.loads(row.change)["arguments"]
            return self._action(row.action).plan(session, self.tenant, row.id, arguments)
        except ServerError as error:
            return Step.OUTDATE, str(error), ()

    def _done(self, session: Session, row: Proposal, changes: Sequence[Change], actor: Actor) -> None:
        self._move(row, Step.EXECUTE)
        for change in changes:
            detail = {**change.detail, "proposal": row.id, "proposer": row.proposer}
            append(session, self.tenant, actor, change._replace(detail=detail))

    def _end(self, session: Session, row: Proposal, actor: Actor, step: Step, outcome: str) -> None:
        """End it without having been made, and say why."""
        self._move(row, step, outcome)
        self._note(session, actor, f"proposal.{row.state}", row, {"outcome": row.outcome})

    def _move(self, row: Proposal, step: Step, outcome: str = "") -> None:
        state = next_state(ProposalState(row.state), step)
        assert state is not None  # noqa: S101 - the row is held, and its state was looked at
        row.state, row.outcome, row.decided_ms = state, outcome[:_OUTCOME], wall_ms()

    def _expire(self, session: Session, now_ms: int) -> None:
        """Write down what has expired; people are shown it from the moment on that it has."""
        late = session.exec(
            select(Proposal)
            .where(Proposal.tenant == self.tenant, Proposal.state == ProposalState.PROPOSED)
            .where(Proposal.expires_ms <= now_ms)
            .with_for_update()
        )
        for row in late:
            self._end(session, row, Actor.system("api"), Step.EXPIRE, _("nobody decided in time"))

    def _vote(self, session: Session, caller: Caller, row: Proposal, reason: str, *, agrees: bool) -> None:
        if session.get(Approval, (self.tenant, row.id, caller.person)) is not None:
            raise ProposalConflict(
                _("{person} has approved it already; it takes {needed} people").format(
                    person=caller.person, needed=row.needed
                )
            )
        session.add(
            Approval(
                tenant=self.tenant,
                proposal=row.id,
                person=caller.person,
                agrees=agrees,
                sha256=row.sha256,
                reason=reason,
                given_ms=wall_ms(),
            )
        )
        session.flush()

    def _require_another(self, caller: Caller, row: Proposal) -> None:
        if caller.person == row.proposer:
            raise NotYours(
                _("{person} has proposed it: somebody else decides on it").format(person=caller.person)
            )

    def _require_independent(self, session: Session, caller: Caller, other: str, span: Span) -> None:
        """See to it that the caller is not ``other`` once more, under another name."""
        if caller.person in puppets_of(session, self.tenant, other, span):
            raise NotYours(
                _(
                    "{other} has given {person} their account or login of late, or somebody whom {other} "
                    "gave theirs: somebody else decides on it"
                ).format(other=other, person=caller.person)
            )

    def _require_reach(
        self, session: Session, caller: Caller, permission: Permission, radius: Radius
    ) -> None:
        if not reaches(session, caller, permission, radius):
            raise _no_reach(caller, permission)

    def _needed(self, session: Session, action: str, arguments: Arguments, radius: Radius) -> int:
        rows = session.exec(select(ApprovalRule).where(ApprovalRule.tenant == self.tenant))
        known = {(row.site, row.action): row.approvals for row in rows}
        sites: Sequence[str] = radius.sites
        if radius.everywhere:
            sites = (NO_SITE, *session.exec(select(Site.id).where(Site.tenant == self.tenant)))
        # Whoever changes a rule needs what the rule asks for: else one approval undoes that two are needed.
        ruled = rules.about(arguments, self.actions) if action == rules.SET else ()
        return max(approvals_needed(known, each, sites) for each in (action, *ruled))

    def _note(
        self,
        session: Session,
        actor: Actor,
        action: str,
        row: Proposal,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        append(session, self.tenant, actor, Change(action, row.id, detail=detail or {}))

    def _action(self, name: str) -> Action:
        if name not in self.actions:
            raise BadChange(
                _("there is no action {name!r}; there are: {known}").format(
                    name=name[:80], known=", ".join(sorted(self.actions))
                )
            )
        return self.actions[name]


_Attempt = tuple[Step, str, Sequence[Change]]


def _attempt(plan: Plan) -> _Attempt:
    """What came of making a change that no transaction holds."""
    try:
        return Step.EXECUTE, "", plan.carry()
    except Stale as error:
        return Step.OUTDATE, str(error), ()
    except ServerError as error:
        return Step.FAIL, str(error), ()


def question_of(row: Proposal) -> Question:
    """What is to be decided."""
    return Question(ProposalState(row.state), row.proposer, row.sha256, row.needed, row.expires_ms)


def votes_of(session: Session, row: Proposal) -> list[Vote]:
    """Who has said what, and whether they still may."""
    radius = radius_of(row)
    rows = session.exec(
        select(Approval)
        .where(Approval.tenant == row.tenant, Approval.proposal == row.id)
        .order_by(col(Approval.given_ms), col(Approval.person))
    ).all()
    if not rows:
        return []
    puppets = puppets_of(session, row.tenant, row.proposer, Span(row.created_ms, row.decided_ms))
    return [
        Vote(
            one.person,
            one.agrees,
            one.sha256,
            reaches(session, standing(session, row.tenant, one.person), Permission.CHANGE_APPROVE, radius)
            and not (one.agrees and one.person in puppets),
        )
        for one in rows
    ]


def radius_of(row: Proposal) -> Radius:
    """What it reaches, as it was shown."""
    shown = json.loads(row.radius)
    devices = tuple(Touched(**device) for device in shown.pop("devices"))
    return Radius(tuple(shown["sites"]), shown["count"], shown["everywhere"], devices)


def _require_same(row: Proposal, sha256: str) -> None:
    if sha256 != row.sha256:
        raise ProposalConflict(
            _("proposal {id} has the digest {sha256}; look at it again before you approve it").format(
                id=row.id, sha256=row.sha256
            )
        )


def _no_reach(caller: Caller, permission: Permission) -> NotYours:
    return NotYours(
        _("{person} does not have the right {right} on everything that it reaches").format(
            person=caller.person, right=permission.value
        )
    )
