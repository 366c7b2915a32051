"""Rollouts in the database: started, paused, resumed, aborted, and moved on.

Every change is one transaction that holds the rollout's row: it reads the course, lets
:mod:`.rollout_decision` decide, and writes whatever became of it, assignments and all. Killed at any
moment, none of it has happened or all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.messages import UpdateReport
from fleet_protocol.targets import Kind, Mode
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import (
    Artifact,
    Assignment,
    Device,
    Rollout,
    RolloutMember,
    Twin,
    TwinHalf,
    Wave,
)
from fleet_server.devices import groups
from fleet_server.errors import RolloutConflict, RolloutNotFound, RulesError
from fleet_server.updates import fitness, rollout_decision, rollout_rules
from fleet_server.updates.assignments import assign
from fleet_server.updates.attested import instead
from fleet_server.updates.rollout_decision import (
    OPEN,
    UNSETTLED,
    Course,
    Goal,
    Member,
    MemberState,
    RolloutState,
    decide,
)
from fleet_server.updates.rollout_rules import Rules

LEFT_OUT: Final = 0
"""The wave of the devices that the artifact does not fit: none."""

_NAMED: Final = 3
_LINE: Final = 200


class Action(StrEnum):
    """What a person may do to a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"


_ACTIONS: Final[Mapping[tuple[Action, RolloutState], RolloutState]] = {
    (Action.PAUSE, RolloutState.RUNNING): RolloutState.PAUSED,
    (Action.RESUME, RolloutState.PAUSED): RolloutState.RUNNING,
    (Action.ABORT, RolloutState.RUNNING): RolloutState.ABORTED,
    (Action.ABORT, RolloutState.PAUSED): RolloutState.ABORTED,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for: move ``group`` to a release, by these rules, for a reason; maybe in shadow."""

    group: str
    kind: Kind
    name: str
    release: int
    rules: Rules
    reason: str
    mode: Mode = Mode.ACT


class _Updates(msgspec.Struct):
    """What a rollout reads of a device's report."""

    updates: list[UpdateReport] = []


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a rollout would do if it began now: its waves of devices, and why others are left out."""

    artifact: Artifact
    devices: tuple[Device, ...]
    waves: tuple[tuple[str, ...], ...]
    unfit: Mapping[str, str]


def foresee(session: Session, tenant: str, identity: str, order: Order) -> Outlook:
    """What the rollout ``identity`` would do by ``order``; nothing else of its name begins meanwhile.

    Raises:
        RolloutNotFound: no such group or artifact.
        RulesError: the rules make no sense, or not for this group.
        RolloutConflict: another rollout moves some of the devices to a release of the same name.
    """
    rollout_rules.check(order.rules)
    if order.mode is Mode.SHADOW and order.kind is not Kind.MODEL:
        raise RulesError(
            _("only a model can run in shadow; roll {kind} out without it").format(kind=order.kind)
        )
    artifact = _lock_artifact(session, tenant, order)
    devices = groups.members(session, tenant, order.group)
    _refuse_overlap(session, tenant, order, {device.id for device in devices})
    unfit = {
        device.id: " ".join(found)
        for device in devices
        if (found := fitness.problems(artifact, device.profile))
    }
    if order.mode is Mode.SHADOW:
        unfit |= dict.fromkeys(
            _acting(session, artifact, devices),
            _("the release is to act there; in its own shadow it would learn nothing"),
        )
    waves = _cut(order, devices, unfit, identity)
    return Outlook(artifact, tuple(devices), tuple(map(tuple, waves)), unfit)


def start(session: Session, tenant: str, identity: str, order: Order, outlook: Outlook) -> None:
    """Begin the rollout as it was foreseen; the rollouts process opens the first wave."""
    row = Rollout(
        tenant=tenant,
        id=identity,
        device_group=order.group,
        artifact=outlook.artifact.sha256,
        mode=order.mode,
        state=RolloutState.RUNNING,
        rules=msgspec.json.encode(order.rules).decode(),
        reason=order.reason,
        created_ms=wall_ms(),
    )
    session.add(row)
    session.flush()
    session.add_all(
        Wave(tenant=tenant, rollout=identity, number=number) for number in range(1, len(outlook.waves) + 1)
    )
    _add_members(session, row, outlook)


def resume(session: Session, tenant: str, identity: str) -> None:
    """Let a rollout that is paused go on; raises as :func:`act`."""
    _act(session, lock(session, tenant, identity), Action.RESUME)


def require_paused(session: Session, tenant: str, identity: str) -> Rollout:
    """The rollout, which can be resumed; raises as :func:`act`."""
    row = lock(session, tenant, identity)
    _wanted(row, Action.RESUME)
    return row


def act(engine: Engine, tenant: str, identity: str, action: Action, actor: Actor) -> None:
    """Pause or abort, at once and by whoever sees harm. What follows from it has happened then.

    Raises:
        RolloutNotFound: no such rollout.
        RolloutConflict: it is in no state for that.
    """
    with writing(engine) as session:
        row = lock(session, tenant, identity)
        before = row.state
        _act(session, row, action)
        append(session, tenant, actor, Change(f"rollout.{action}", identity, before, row.state))


def _act(session: Session, row: Rollout, action: Action) -> None:
    row.state = _wanted(row, action)
    if row.state == RolloutState.ABORTED:
        row.detail, row.ended_ms = _("aborted by a person"), wall_ms()
    session.add(row)
    session.flush()
    advance(session, row, wall_ms())


def _wanted(row: Rollout, action: Action) -> RolloutState:
    """Where ``action`` leads."""
    wanted = _ACTIONS.get((action, RolloutState(row.state)))
    if wanted is None:
        raise RolloutConflict(
            _("rollout {id} is {state}; it cannot {action} now").format(
                id=row.id, state=row.state, action=action
            )
        )
    return wanted


def advance(session: Session, row: Rollout, now_ms: int) -> bool:
    """Do what is due in a locked rollout, within the caller's transaction; whether there was anything."""
    artifact = session.get_one(Artifact, (row.tenant, row.artifact))
    before = _load(session, row, artifact, hold=True)
    decisions = decide(before, _reports(session, row, artifact), now_ms)
    if decisions:
        _save(session, row, artifact, (before, reduce(rollout_decision.apply, decisions, before)), now_ms)
    return bool(decisions)


def is_due(session: Session, tenant: str, identity: str, now_ms: int) -> bool:
    """Whether :func:`advance` would do anything now; asked without holding anybody up."""
    row = session.get_one(Rollout, (tenant, identity))
    artifact = session.get_one(Artifact, (tenant, row.artifact))
    course = _load(session, row, artifact, hold=False)
    return bool(decide(course, _reports(session, row, artifact), now_ms))


def lock(session: Session, tenant: str, identity: str) -> Rollout:
    """The rollout's row, held until the transaction ends.

    Raises:
        RolloutNotFound: there is none.
    """
    row = session.get(Rollout, (tenant, identity), with_for_update=True)
    if row is None:
        raise RolloutNotFound(_("there is no rollout {id!r}").format(id=identity[:80]))
    return row


def pending(session: Session) -> list[tuple[str, str]]:
    """The rollouts that may have something to do, as (tenant, id), the oldest first."""
    is_awaited = (
        select(RolloutMember.device)
        .where(RolloutMember.tenant == Rollout.tenant, RolloutMember.rollout == Rollout.id)
        .where(col(RolloutMember.state).in_(UNSETTLED))
        .exists()
    )
    query = select(Rollout.tenant, Rollout.id).where(col(Rollout.state).in_(OPEN) | is_awaited)
    return list(session.exec(query.order_by(col(Rollout.created_ms), col(Rollout.id))))


def _lock_artifact(session: Session, tenant: str, order: Order) -> Artifact:
    """The artifact to move to. All releases of its name are held: no two rollouts of it begin at once."""
    releases = session.exec(
        select(Artifact)
        .where(Artifact.tenant == tenant, Artifact.kind == order.kind, Artifact.name == order.name)
        .order_by(col(Artifact.release))
        .with_for_update(key_share=True)
    )
    found = {artifact.release: artifact for artifact in releases}
    if order.release not in found:
        known = ", ".join(map(str, found)) or _("none")
        raise RolloutNotFound(
            _("there is no release {release} of {kind} {name!r} here (there are: {known})").format(
                release=order.release, kind=order.kind, name=order.name[:80], known=known
            )
        )
    return found[order.release]


def _refuse_overlap(session: Session, tenant: str, order: Order, devices: set[str]) -> None:
    is_of_rollout = (col(Rollout.tenant) == RolloutMember.tenant) & (col(Rollout.id) == RolloutMember.rollout)
    is_artifact = (col(Artifact.tenant) == Rollout.tenant) & (col(Artifact.sha256) == Rollout.artifact)
    others = session.exec(
        select(RolloutMember.rollout, RolloutMember.device)
        .join(Rollout, is_of_rollout)
        .join(Artifact, is_artifact)
        .where(RolloutMember.tenant == tenant, Artifact.kind == order.kind, Artifact.name == order.name)
        .where(col(Rollout.state).in_(OPEN), RolloutMember.wave != LEFT_OUT, Rollout.mode == order.mode)
        .order_by(col(RolloutMember.rollout), col(RolloutMember.device))
    )
    if shared := [(rollout, device) for rollout, device in others if device in devices]:
        raise RolloutConflict(
            _("rollout {id} moves {count} of these devices to a release of {name} already: {devices}").format(
                id=shared[0][0],
                count=len(shared),
                name=order.name,
                devices=", ".join(device for _rollout, device in shared[:_NAMED]),
            )
        )


def _acting(session: Session, artifact: Artifact, devices: Sequence[Device]) -> list[str]:
    """Those of ``devices`` on which ``artifact`` is to act."""
    acting = session.exec(
        select(Assignment.device)
        .where(Assignment.tenant == artifact.tenant, Assignment.artifact == artifact.sha256)
        .where(Assignment.mode == Mode.ACT)
    )
    return sorted({device.id for device in devices}.intersection(acting))


def _cut(order: Order, devices: Sequence[Device], unfit: Mapping[str, str], identity: str) -> list[list[str]]:
    fit = [device.id for device in devices if device.id not in unfit]
    if not fit:
        reason = next(iter(unfit.values()), _("the group holds no devices"))
        raise RulesError(_("nothing to roll out to: {reason}").format(reason=reason))
    return rollout_rules.cut(order.rules, fit, identity)


def _add_members(session: Session, row: Rollout, outlook: Outlook) -> None:
    artifact = outlook.artifact
    previous = {
        one.device: one.artifact
        for one in session.exec(
            select(Assignment).where(
                Assignment.tenant == row.tenant,
                Assignment.kind == artifact.kind,
                Assignment.name == artifact.name,
                Assignment.mode == row.mode,
            )
        )
    }
    places = [(device, number, "") for number, wave in enumerate(outlook.waves, 1) for device in wave]
    places += [(device, LEFT_OUT, why) for device, why in outlook.unfit.items()]
    session.add_all(
        RolloutMember(
            tenant=row.tenant,
            rollout=row.id,
            device=device,
            wave=number,
            state=MemberState.WAITING if number else MemberState.LEFT,
            previous=previous.get(device),
            detail=why[:_LINE],
            since_ms=row.created_ms,
        )
        for device, number, why in places
    )


def _load(session: Session, row: Rollout, artifact: Artifact, *, hold: bool) -> Course:
    rules = msgspec.json.decode(row.rules, type=Rules)
    waves = session.exec(
        select(Wave).where(Wave.tenant == row.tenant, Wave.rollout == row.id).order_by(col(Wave.number))
    )
    goals = {
        one.sha256: Goal(one.sha256, one.release)
        for one in session.exec(
            select(Artifact).where(
                Artifact.tenant == row.tenant, Artifact.kind == artifact.kind, Artifact.name == artifact.name
            )
        )
    }
    assigned = _assigned(session, row, artifact, hold=hold)
    return Course(
        state=RolloutState(row.state),
        goal=goals[artifact.sha256],
        max_failures=rules.max_failures,
        soak_ms=rules.soak_s * 1000,
        waves=tuple(rollout_decision.Wave(wave.started_ms, wave.ended_ms) for wave in waves),
        members={
            one.device: Member(
                wave=one.wave,
                state=MemberState(one.state),
                assigned=goals.get(assigned.get(one.device, "")),
                previous=goals.get(one.previous or ""),
                tried=one.tried,
                refusal=one.refusal,
                detail=one.detail,
            )
            for one in _members(session, row)
        },
        detail=row.detail,
    )


def _members(session: Session, row: Rollout) -> Sequence[RolloutMember]:
    return session.exec(
        select(RolloutMember)
        .where(RolloutMember.tenant == row.tenant, RolloutMember.rollout == row.id)
        .order_by(col(RolloutMember.device))
    ).all()


def _assigned(session: Session, row: Rollout, artifact: Artifact, *, hold: bool) -> dict[str, str]:
    """What the devices of the rollout shall have now; ``hold`` keeps others from assigning meanwhile."""
    is_member = (col(RolloutMember.tenant) == Assignment.tenant) & (
        col(RolloutMember.device) == Assignment.device
    )
    query = (
        select(Assignment.device, Assignment.artifact)
        .join(RolloutMember, is_member)
        .where(RolloutMember.tenant == row.tenant, RolloutMember.rollout == row.id)
        .where(Assignment.kind == artifact.kind, Assignment.name == artifact.name)
        .where(Assignment.mode == row.mode)
        .order_by(col(Assignment.device))
    )
    return dict(session.exec(query.with_for_update(of=Assignment) if hold else query).all())


def _reports(session: Session, row: Rollout, artifact: Artifact) -> dict[str, UpdateReport]:
    """What the devices that have not ended report of the artifact's name."""
    is_member = (col(RolloutMember.tenant) == Twin.tenant) & (col(RolloutMember.device) == Twin.device)
    rows = session.exec(
        select(Twin.device, Twin.document)
        .join(RolloutMember, is_member)
        .where(RolloutMember.tenant == row.tenant, RolloutMember.rollout == row.id)
        .where(col(RolloutMember.state).in_(UNSETTLED), Twin.half == TwinHalf.REPORTED)
    )
    found = {device: report_of(document, artifact, Mode(row.mode)) for device, document in rows}
    silent = [one.device for one in _members(session, row) if one.state in UNSETTLED]
    found |= instead(session, row.tenant, silent, artifact, row.mode)
    return {device: report for device, report in found.items() if report is not None}


def report_of(document: str, artifact: Artifact, mode: Mode) -> UpdateReport | None:
    """What a device's reported half says of the artifact's name, run so."""
    return report_on(document, artifact.kind, artifact.name, mode)


def report_on(document: str, kind: str, name: str, mode: Mode) -> UpdateReport | None:
    """What a device's reported half says of the artifact of this kind and name, run so."""
    for report in msgspec.json.decode(document, type=_Updates).updates:
        if (report.kind, report.name, report.mode) == (kind, name, mode):
            return report
    return None


def _save(
    session: Session, row: Rollout, artifact: Artifact, courses: tuple[Course, Course], now_ms: int
) -> None:
    """Write down whatever differs between the two courses."""
    before, after = courses
    if after.state is not before.state:
        row.state, row.detail, row.ended_ms = after.state, after.detail, now_ms
        session.add(row)
    for number, (old, new) in enumerate(zip(before.waves, after.waves, strict=True), 1):
        if new != old:
            wave = session.get_one(Wave, (row.tenant, row.id, number))
            wave.started_ms, wave.ended_ms = new.opened_ms, new.ended_ms
            session.add(wave)
    changed = {name for name, member in after.members.items() if member != before.members[name]}
    for one in _members(session, row):
        if one.device in changed:
            _write(one, after.members[one.device], now_ms)
            session.add(one)
    wishes = {
        name: goal.sha256 if (goal := after.members[name].assigned) else None
        for name in changed
        if after.members[name].assigned != before.members[name].assigned
    }
    terms = msgspec.json.decode(row.rules, type=Rules).delivery
    what = (Kind(artifact.kind), artifact.name)
    assign(session, row.tenant, what, wishes, now_ms, Mode(row.mode), terms)
    _note(session, row, courses)


def _note(session: Session, row: Rollout, courses: tuple[Course, Course]) -> None:
    """Record what the rollout did by itself: a wave that it opened, or its end."""
    before, after = courses
    opened = [
        number
        for number, (old, new) in enumerate(zip(before.waves, after.waves, strict=True), 1)
        if old.opened_ms is None and new.opened_ms is not None
    ]
    if not opened and after.state is before.state:
        return
    detail = {"state": after.state, "opened": opened, "why": after.detail}
    change = Change("rollout.advance", row.id, before.state, after.state, detail)
    append(session, row.tenant, Actor.system("rollouts"), change)


def _write(row: RolloutMember, member: Member, now_ms: int) -> None:
    if row.state != member.state:
        row.state, row.since_ms = member.state, now_ms
    row.tried, row.refusal, row.detail = member.tried[:_LINE], member.refusal[:_LINE], member.detail[:_LINE]
