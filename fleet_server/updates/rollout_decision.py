"""What a rollout does next. Pure: what is recorded and what devices report becomes decisions.

:func:`decide` gives every decision that is due now, in order; :func:`apply` is what each one changes.
Whoever keeps a rollout writes down what ``apply`` made of it, all in one transaction: asked again with
the same reports there is nothing left to decide.

- A wave opens as a whole, and only after the one before has ended and was looked at for a while.
- A device has ended when it runs the release (done), will not run it (failed: it refused, its test
  failed, it rolled back), or was given something else meanwhile (left).
- A device that is offline has its assignment and is neither: it holds the wave.
- More failures than the rules allow end the rollout at once. Then, and when a person aborts it,
  whoever has not begun, or only downloads, gets back what it was to have before; whoever has
  accepted the release is seen through, for it could not take back an older one.
- What failed on a device is not left standing for it: the device would refuse it for ever.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from fleet_protocol.messages import UpdateReport
from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _
from fleet_protocol.update_states import FINAL, UpdateState


class RolloutState(StrEnum):
    """Where a rollout stands; the last three are its ends."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    ABORTED = "aborted"


class MemberState(StrEnum):
    """Where a device of a rollout stands."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"
    WITHDRAWN = "withdrawn"


OPEN: Final = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
"""States in which a rollout has not ended."""

UNSETTLED: Final = frozenset({MemberState.WAITING, MemberState.ASSIGNED})
"""States of a device that still change."""

_UNTOUCHED: Final = frozenset(
    {
        Refusal.FORGED, Refusal.REPLAYED, Refusal.EXPIRED, Refusal.NOT_PUBLISHED, Refusal.DISAGREEMENT,
        Refusal.WRONG_DEVICE, Refusal.WRONG_HARDWARE, Refusal.ROLLBACK,
    }
)  # fmt: skip
"""Refusals from the metadata alone: the device has accepted nothing, so what it had before still suits it."""

_HAS_FAILED: Final = frozenset({UpdateState.FAILED, UpdateState.ROLLED_BACK})
_NOT_ACCEPTED: Final = FINAL | {UpdateState.IDLE, UpdateState.DOWNLOADING}


@dataclass(frozen=True, slots=True)
class Goal:
    """An artifact that a device shall have."""

    sha256: str
    release: int


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a rollout. ``assigned`` is what it shall have now, ``previous`` what at the start.

    ``tried`` marks the failure of an earlier try that the device reported when this one was assigned.
    """

    wave: int
    state: MemberState = MemberState.WAITING
    assigned: Goal | None = None
    previous: Goal | None = None
    tried: str = ""
    refusal: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """When a wave opened, and when its last device had ended; ms since 1970."""

    opened_ms: int | None = None
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """A rollout as it is recorded; the first wave has number 1."""

    state: RolloutState
    goal: Goal
    max_failures: int
    soak_ms: int
    waves: tuple[Wave, ...]
    members: Mapping[str, Member]
    detail: str = ""

    def count(self, *states: MemberState) -> int:
        """How many devices are in one of ``states``."""
        return sum(member.state in states for member in self.members.values())


@dataclass(frozen=True, slots=True)
class OpenWave:
    """The wave's devices are to be assigned."""

    number: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Assign:
    """These devices shall have the artifact; each with the mark of its earlier failed try, or none."""

    devices: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Settle:
    """These devices have ended."""

    members: Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """These devices do not get it any more; what they were to have before stands again."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndWave:
    """Every device of the wave has ended."""

    number: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class End:
    """The rollout is over."""

    state: RolloutState
    detail: str


Decision = OpenWave | Assign | Settle | Withdraw | EndWave | End
Reports = Mapping[str, UpdateReport]
"""What each device says of the artifact's name; a device that says nothing is missing."""


def decide(course: Course, reports: Reports, now_ms: int) -> list[Decision]:
    """Everything that is due now, in order."""
    decisions: list[Decision] = []
    while (decision := _next(course, reports, now_ms)) is not None:
        decisions.append(decision)
        course = apply(course, decision)
    return decisions


def apply(course: Course, decision: Decision) -> Course:
    """What ``decision`` makes of ``course``."""
    match decision:
        case OpenWave(number, now_ms):
            return _with_wave(course, number, Wave(opened_ms=now_ms))
        case EndWave(number, now_ms):
            return _with_wave(course, number, replace(course.waves[number - 1], ended_ms=now_ms))
        case Assign(devices):
            return _with_members(course, devices, lambda one, mark: _assigned(one, course.goal, mark))
        case Settle(members):
            return replace(course, members={**course.members, **members})
        case Withdraw(devices):
            return _with_members(course, dict.fromkeys(devices, ""), lambda one, _mark: _withdrawn(one))
        case End(state, detail):
            return replace(course, state=state, detail=detail)


def has_begun(report: UpdateReport | None, goal: Goal) -> bool:
    """Whether the device has accepted ``goal`` and is on its way to it, or back."""
    return report is not None and report.release == goal.release and report.state not in _NOT_ACCEPTED


def _next(course: Course, reports: Reports, now_ms: int) -> Decision | None:
    """The first thing that is due; the order of these questions is the rollout's whole behavior."""
    return (
        _settle(course, reports)
        or _give_up(course)
        or _withdraw(course, reports)
        or _assign(course, reports)
        or _end_wave(course, now_ms)
        or _open_wave(course, now_ms)
        or _finish(course)
    )


def _settle(course: Course, reports: Reports) -> Settle | None:
    settled = {}
    for device, member in _touched(course):
        ended = _ended(member, reports.get(device), course.goal)
        if ended is not None:
            settled[device] = ended
    return Settle(settled) if settled else None


def _touched(course: Course) -> Iterator[tuple[str, Member]]:
    """The devices whose wave is open and that have not ended."""
    for device, member in course.members.items():
        if member.state in UNSETTLED and member.wave and course.waves[member.wave - 1].opened_ms is not None:
            yield device, member


def _ended(member: Member, report: UpdateReport | None, goal: Goal) -> Member | None:
    """How the device has ended, or None while it has not."""
    is_assigned = member.state is MemberState.ASSIGNED
    if is_assigned and _runs(report, goal):
        return replace(member, state=MemberState.DONE, detail="")
    if report is not None and report.installed > goal.release:
        detail = _("runs release {release} already").format(release=report.installed)
        return replace(member, state=MemberState.LEFT, detail=detail)
    if report is not None and _counts_as_failed(member, report, goal):
        return _failed(member, report, goal)
    if member.assigned not in {goal, goal if is_assigned else member.previous}:
        return replace(member, state=MemberState.LEFT, detail=_("was assigned something else meanwhile"))
    return None


def _runs(report: UpdateReport | None, goal: Goal) -> bool:
    if report is None or has_begun(report, goal):
        return False
    is_committed = report.release == goal.release and report.state == UpdateState.COMMITTED
    return is_committed or report.installed == goal.release


def _counts_as_failed(member: Member, report: UpdateReport, goal: Goal) -> bool:
    """A failure of this try; before it is assigned, only one that the device would not try again."""
    if not _tells_of_failure(report, goal) or report.installed == goal.release:
        return False
    if member.state is MemberState.ASSIGNED:
        return mark_of(report) != member.tried
    return report.refusal in {"", Refusal.FAILED_HERE}


def _tells_of_failure(report: UpdateReport | None, goal: Goal) -> bool:
    return (
        report is not None
        and report.release == goal.release
        and (report.state in _HAS_FAILED or bool(report.refusal))
    )


def mark_of(report: UpdateReport) -> str:
    """What tells one failed try of a device from the next."""
    return f"{report.since_wall_ms} {report.state} {report.refusal}"


def _failed(member: Member, report: UpdateReport, goal: Goal) -> Member:
    return replace(
        member,
        state=MemberState.FAILED,
        assigned=_instead(member, report, goal) if member.assigned == goal else member.assigned,
        refusal=report.refusal,
        detail=report.detail or report.state,
    )


def _instead(member: Member, report: UpdateReport, goal: Goal) -> Goal | None:
    """What a device shall have in place of what failed there: what it had, if it would still take it."""
    had = member.previous
    if had is None or had == goal:
        return None
    takes_it = report.installed == had.release or had.release > goal.release or report.refusal in _UNTOUCHED
    return had if takes_it else None


def _give_up(course: Course) -> End | None:
    failed = course.count(MemberState.FAILED)
    if course.state not in OPEN or failed <= course.max_failures:
        return None
    detail = _("{failed} failed, at most {limit} may").format(failed=failed, limit=course.max_failures)
    return End(RolloutState.FAILED, detail)


def _withdraw(course: Course, reports: Reports) -> Withdraw | None:
    if course.state not in {RolloutState.FAILED, RolloutState.ABORTED}:
        return None
    devices = tuple(
        device
        for device, member in course.members.items()
        if member.state in UNSETTLED
        and not (member.state is MemberState.ASSIGNED and has_begun(reports.get(device), course.goal))
    )
    return Withdraw(devices) if devices else None


def _assign(course: Course, reports: Reports) -> Assign | None:
    marks = {}
    for device, member in _touched(course):
        if member.state is MemberState.WAITING:
            report = reports.get(device)
            has_tried = report is not None and _tells_of_failure(report, course.goal)
            marks[device] = mark_of(report) if report is not None and has_tried else ""
    return Assign(marks) if marks else None


def _end_wave(course: Course, now_ms: int) -> EndWave | None:
    number = _open_number(course)
    if number is None or any(member.wave == number for _device, member in _touched(course)):
        return None
    return EndWave(number, now_ms)


def _open_wave(course: Course, now_ms: int) -> OpenWave | None:
    if course.state is not RolloutState.RUNNING or _open_number(course) is not None:
        return None
    before: Wave | None = None
    for number, wave in enumerate(course.waves, 1):
        if wave.opened_ms is None:
            is_due = before is None or before.ended_ms is None or now_ms >= before.ended_ms + course.soak_ms
            return OpenWave(number, now_ms) if is_due else None
        before = wave
    return None


def _finish(course: Course) -> End | None:
    is_over = course.state in OPEN and all(wave.ended_ms is not None for wave in course.waves)
    return End(RolloutState.DONE, "") if is_over else None


def _open_number(course: Course) -> int | None:
    for number, wave in enumerate(course.waves, 1):
        if wave.opened_ms is not None and wave.ended_ms is None:
            return number
    return None


def _assigned(member: Member, goal: Goal, mark: str) -> Member:
    return replace(member, state=MemberState.ASSIGNED, assigned=goal, tried=mark)


def _withdrawn(member: Member) -> Member:
    """Without it; a device that never had it, or was given something else meanwhile, keeps what it has."""
    was_assigned = member.state is MemberState.ASSIGNED
    return replace(
        member,
        state=MemberState.WITHDRAWN,
        assigned=member.previous if was_assigned else member.assigned,
    )


def _with_wave(course: Course, number: int, wave: Wave) -> Course:
    waves = list(course.waves)
    waves[number - 1] = wave
    return replace(course, waves=tuple(waves))


def _with_members(
    course: Course, devices: Mapping[str, str], change: Callable[[Member, str], Member]
) -> Course:
    changed = {device: change(course.members[device], mark) for device, mark in devices.items()}
    return replace(course, members={**course.members, **changed})
