"""Rollouts as people see them: the list, and one rollout's page with every device's state."""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.messages import HealthReport, UpdateReport
from fleet_protocol.targets import Mode
from fleet_protocol.texts import _
from fleet_server.access.roles import Scope
from fleet_server.approvals.pages import answerable
from fleet_server.clock import wall_ms
from fleet_server.database.models import Artifact, Presence, Rollout, RolloutMember, Twin, TwinHalf, Wave
from fleet_server.devices.health import DeviceState, Signs, state_of
from fleet_server.devices.scope import ALL, among
from fleet_server.errors import RolloutNotFound
from fleet_server.updates.attested import instead
from fleet_server.updates.rollout_decision import MemberState
from fleet_server.updates.rollout_rules import Rules
from fleet_server.updates.rollouts import LEFT_OUT, report_of

_HALVES: Final = (TwinHalf.STATUS, TwinHalf.REPORTED)
_OUT_OF_REACH: Final = frozenset({"update.refused", "update.unreachable"})


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """A rollout in a list; ``counts`` is how many devices are in each state.

    ``asked_by`` proposed it, ``approved_by`` agreed, or broke the glass.
    """

    id: str
    state: str
    detail: str
    reason: str
    group: str
    kind: str
    name: str
    release: int
    version: str
    mode: str
    waves: list[str]
    max_failures: int
    soak_s: int
    created_ms: int
    ended_ms: int | None
    counts: dict[str, int]
    asked_by: str
    approved_by: list[str]


@dataclass(frozen=True, slots=True)
class MemberView:
    """A device of a rollout. ``update`` is what it reports: a state, and how many bytes of all it has.

    ``is_holding`` says that the wave waits for a device that is not there.
    """

    id: str
    state: str
    since_ms: int
    presence: str
    is_holding: bool
    update: str
    done: int
    size: int
    refusal: str
    detail: str


@dataclass(frozen=True, slots=True)
class WaveView:
    """A wave: waiting, open, or ended; ``next_ms`` is when the one after it may open."""

    number: int
    state: str
    started_ms: int | None
    ended_ms: int | None
    next_ms: int | None
    devices: list[MemberView]


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """Everything about one rollout; ``left_out`` are the devices that the artifact does not fit."""

    rollout: RolloutSummary
    waves: list[WaveView]
    left_out: list[MemberView]


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is known of a device beside the rollout; ``trouble`` is why no update reaches it."""

    presence: DeviceState
    report: UpdateReport | None
    trouble: str


class _Health(msgspec.Struct):
    """What a page reads of a device's report beside its updates."""

    health: list[HealthReport] = []


def list_rollouts(
    engine: Engine, tenant: str, after: str, limit: int, scopes: Collection[Scope] = ALL
) -> list[RolloutSummary]:
    """At most ``limit`` rollouts, the newest first, from the first one older than ``after`` on.

    Devices outside ``scopes`` are not counted.

    Raises:
        RolloutNotFound: there is no rollout ``after``.
    """
    newest_first = (col(Rollout.created_ms).desc(), col(Rollout.id).desc())
    query = select(Rollout).where(Rollout.tenant == tenant)
    with Session(engine) as session:
        if after:
            last = _require(session, tenant, after)
            query = query.where(
                (col(Rollout.created_ms) < last.created_ms)
                | ((col(Rollout.created_ms) == last.created_ms) & (col(Rollout.id) < last.id))
            )
        rows = session.exec(query.order_by(*newest_first).limit(limit)).all()
        return [_summary(session, row, scopes) for row in rows]


def get_rollout(engine: Engine, tenant: str, identity: str, scopes: Collection[Scope] = ALL) -> RolloutPage:
    """Everything about one rollout, as far as it is about devices within ``scopes``.

    Raises:
        RolloutNotFound: there is none.
    """
    with Session(engine) as session:
        row = _require(session, tenant, identity)
        summary = _summary(session, row, scopes)
        waves = session.exec(
            select(Wave).where(Wave.tenant == tenant, Wave.rollout == identity).order_by(col(Wave.number))
        ).all()
        members = session.exec(
            select(RolloutMember)
            .where(RolloutMember.tenant == tenant, RolloutMember.rollout == identity)
            .where(among(col(RolloutMember.device), tenant, scopes))
            .order_by(col(RolloutMember.device))
        ).all()
        sights = _sights(session, row, scopes)
    views: dict[int, list[MemberView]] = {number: [] for number in range(len(waves) + 1)}
    for member in members:
        views[member.wave].append(_member(member, sights[member.device], summary.release))
    return RolloutPage(
        rollout=summary,
        waves=[_wave(wave, summary, views[wave.number], len(waves)) for wave in waves],
        left_out=views[LEFT_OUT],
    )


def _require(session: Session, tenant: str, identity: str) -> Rollout:
    row = session.get(Rollout, (tenant, identity))
    if row is None:
        raise RolloutNotFound(_("there is no rollout {id!r}").format(id=identity[:80]))
    return row


def reach(engine: Engine, tenant: str, identity: str, scopes: Collection[Scope]) -> tuple[int, int]:
    """How many devices of a rollout are within ``scopes``, and how many it has in all.

    Raises:
        RolloutNotFound: there is none.
    """
    with Session(engine) as session:
        row = _require(session, tenant, identity)
        members = select(RolloutMember.device).where(
            RolloutMember.tenant == tenant, RolloutMember.rollout == row.id
        )
        inside = session.exec(members.where(among(col(RolloutMember.device), tenant, scopes))).all()
        return len(inside), len(session.exec(members).all())


def _summary(session: Session, row: Rollout, scopes: Collection[Scope]) -> RolloutSummary:
    artifact = session.get_one(Artifact, (row.tenant, row.artifact))
    rules = msgspec.json.decode(row.rules, type=Rules)
    states = session.exec(
        select(RolloutMember.state)
        .where(RolloutMember.tenant == row.tenant, RolloutMember.rollout == row.id)
        .where(RolloutMember.wave != LEFT_OUT, among(col(RolloutMember.device), row.tenant, scopes))
    )
    counted = Counter(states)
    people = answerable(session, row.tenant, row.id)
    return RolloutSummary(
        id=row.id,
        state=row.state,
        detail=row.detail,
        reason=row.reason,
        group=row.device_group,
        kind=artifact.kind,
        name=artifact.name,
        release=artifact.release,
        version=artifact.version,
        mode=row.mode,
        waves=list(rules.waves),
        max_failures=rules.max_failures,
        soak_s=rules.soak_s,
        created_ms=row.created_ms,
        ended_ms=row.ended_ms,
        counts={state.value: counted[state] for state in MemberState},
        asked_by=people.asked_by if people else "",
        approved_by=list(people.approved_by) if people else [],
    )


def _sights(session: Session, row: Rollout, scopes: Collection[Scope]) -> dict[str, _Sight]:
    """What is known of every device of the rollout within ``scopes``."""
    artifact = session.get_one(Artifact, (row.tenant, row.artifact))
    names = select(RolloutMember.device).where(
        RolloutMember.tenant == row.tenant,
        RolloutMember.rollout == row.id,
        among(col(RolloutMember.device), row.tenant, scopes),
    )
    heard = {
        one.device: one.heard_ms
        for one in session.exec(
            select(Presence).where(Presence.tenant == row.tenant, col(Presence.device).in_(names))
        )
    }
    documents = {
        (one.device, one.half): one.document
        for one in session.exec(
            select(Twin)
            .where(Twin.tenant == row.tenant, col(Twin.half).in_(_HALVES))
            .where(col(Twin.device).in_(names))
        )
    }
    now_ms, members = wall_ms(), session.exec(names).all()
    signed = instead(session, row.tenant, members, artifact, row.mode)
    sights = {
        device: _sight(device, heard.get(device), documents, (artifact, Mode(row.mode)), now_ms)
        for device in members
    }
    return sights | {
        device: dataclasses.replace(sights[device], report=report) for device, report in signed.items()
    }


def _sight(
    device: str,
    heard_ms: int | None,
    documents: Mapping[tuple[str, str], str],
    what: tuple[Artifact, Mode],
    now_ms: int,
) -> _Sight:
    status = json.loads(documents.get((device, TwinHalf.STATUS), "{}"))
    reported = documents.get((device, TwinHalf.REPORTED))
    return _Sight(
        presence=state_of(Signs(heard_ms, bool(status.get("online"))), now_ms),
        report=report_of(reported, *what) if reported else None,
        trouble=_trouble(reported) if reported else "",
    )


def _trouble(document: str) -> str:
    """Why no update reaches a device at all: refused metadata, a server that does not answer it."""
    raised = msgspec.json.decode(document, type=_Health).health
    return "; ".join(f"{one.code}: {one.detail}" for one in raised if one.code in _OUT_OF_REACH)


def _member(member: RolloutMember, sight: _Sight, release: int) -> MemberView:
    report = sight.report if sight.report and sight.report.release == release else None
    return MemberView(
        id=member.device,
        state=member.state,
        since_ms=member.since_ms,
        presence=sight.presence,
        is_holding=member.state == MemberState.ASSIGNED and sight.presence is not DeviceState.ONLINE,
        update=report.state if report else "",
        done=report.done if report else 0,
        size=report.size if report else 0,
        refusal=member.refusal,
        detail=member.detail if member.state != MemberState.ASSIGNED else sight.trouble,
    )


def _wave(row: Wave, rollout: RolloutSummary, devices: Sequence[MemberView], last: int) -> WaveView:
    state = "waiting" if row.started_ms is None else "open" if row.ended_ms is None else "ended"
    return WaveView(
        number=row.number,
        state=state,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        next_ms=None if row.ended_ms is None or row.number == last else row.ended_ms + rollout.soak_s * 1000,
        devices=list(devices),
    )
