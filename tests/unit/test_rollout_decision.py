"""The decision core of rollouts: cases told one by one, and any fleet that chance makes up."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.messages import UpdateReport
from fleet_protocol.update_states import UpdateState
from fleet_server.updates.rollout_decision import (
    UNSETTLED,
    Assign,
    Course,
    End,
    EndWave,
    Goal,
    Member,
    MemberState,
    OpenWave,
    RolloutState,
    Settle,
    Wave,
    Withdraw,
    apply,
    decide,
    has_begun,
)

OLD, NEW, NEWER = Goal("a" * 64, 1), Goal("b" * 64, 2), Goal("c" * 64, 3)
SOAK_MS = 60_000


def report(
    state: str = "idle", *, release: int = 2, installed: int = 1, refusal: str = "", since: int = 5
) -> UpdateReport:
    return UpdateReport(
        kind="model", name="leak", release=release, version=str(release), state=state,
        since_wall_ms=since, installed=installed, refusal=refusal,
    )  # fmt: skip


def runs(release: int = 2) -> UpdateReport:
    return report("committed", release=release, installed=release)


def course(*waves: int, failures: int = 0, soak_ms: int = SOAK_MS) -> Course:
    """A running rollout with so many devices in each wave: d0, d1, …"""
    members = {}
    for number, size in enumerate(waves, 1):
        for _ in range(size):
            members[f"d{len(members)}"] = Member(number, assigned=OLD, previous=OLD)
    return Course(RolloutState.RUNNING, NEW, failures, soak_ms, tuple(Wave() for _ in waves), members)


def after(before: Course, reports: Mapping[str, UpdateReport], now_ms: int = 0) -> Course:
    for decision in decide(before, reports, now_ms):
        before = apply(before, decision)
    return before


def states(of: Course) -> dict[str, str]:
    return {device: member.state.value for device, member in of.members.items()}


def test_it_begins_with_the_first_wave_and_nothing_else() -> None:
    assert decide(course(1, 2), {}, 7) == [OpenWave(1, 7), Assign({"d0": ""})]


def test_a_wave_ends_with_its_last_device_and_the_next_waits_for_the_soak() -> None:
    opened = after(course(2, 1), {})
    half = after(opened, {"d0": runs()})
    assert states(half) == {"d0": "done", "d1": "assigned", "d2": "waiting"}
    reports = {"d0": runs(), "d1": runs()}
    assert decide(half, reports, 100) == [
        Settle({"d1": replace(half.members["d1"], state=MemberState.DONE)}),
        EndWave(1, 100),
    ]
    ended = after(half, reports, 100)
    assert decide(ended, reports, 100 + SOAK_MS - 1) == []
    assert decide(ended, reports, 100 + SOAK_MS) == [OpenWave(2, 100 + SOAK_MS), Assign({"d2": ""})]


def test_it_is_done_when_the_last_wave_has_ended_without_another_soak() -> None:
    only = after(course(1), {})
    assert decide(only, {"d0": runs()}, 9)[-1] == End(RolloutState.DONE, "")


def test_an_offline_device_has_its_assignment_and_holds_the_wave() -> None:
    opened = after(course(2, 1), {})
    assert opened.members["d1"].assigned == NEW
    later = after(opened, {"d0": runs()}, 10**9)
    assert later.state is RolloutState.RUNNING
    assert states(later) == {"d0": "done", "d1": "assigned", "d2": "waiting"}


def test_a_device_that_runs_the_release_already_is_assigned_and_done() -> None:
    done = after(course(1), {"d0": runs()})
    assert (done.state, done.members["d0"].assigned) == (RolloutState.DONE, NEW)


def test_a_device_in_probation_is_not_done_though_the_release_runs() -> None:
    opened = after(course(1), {})
    assert decide(opened, {"d0": report("probation", installed=2)}, 1) == []


def test_a_device_that_runs_a_newer_release_has_left_and_is_not_assigned() -> None:
    left = after(course(1), {"d0": runs(3)})
    assert (states(left), left.members["d0"].assigned) == ({"d0": "left"}, OLD)
    assert left.members["d0"].detail == "runs release 3 already"


@pytest.mark.parametrize("state", ["failed", "rolled_back"])
@pytest.mark.parametrize(("installed", "instead"), [(1, OLD), (0, None)])
def test_what_failed_on_a_device_does_not_stand_for_it(
    state: str, installed: int, instead: Goal | None
) -> None:
    """What it had before stands again where it runs; else it would refuse that too, as a way back."""
    failed = after(after(course(1, 1), {}), {"d0": report(state, installed=installed)})
    assert failed.state is RolloutState.FAILED
    assert failed.detail == "1 failed, at most 0 may"
    assert failed.members["d0"].assigned == instead


def test_who_refused_before_accepting_anything_gets_back_what_it_had() -> None:
    refused = report("failed", refusal="wrong_hardware", installed=0)
    failed = after(after(course(1), {}), {"d0": refused})
    assert failed.members["d0"].assigned == OLD
    assert failed.members["d0"].refusal == "wrong_hardware"


def test_a_higher_release_from_before_is_taken_again() -> None:
    start = course(1)
    start = replace(start, members={"d0": Member(1, assigned=NEWER, previous=NEWER)})
    failed = after(after(start, {}), {"d0": report("failed", refusal="tampered")})
    assert failed.members["d0"].assigned == NEWER


def test_what_it_was_assigned_before_does_not_stand_either_if_it_is_what_failed() -> None:
    start = course(1)
    start = replace(start, members={"d0": Member(1, assigned=NEW, previous=NEW)})
    failed = after(after(start, {}), {"d0": report("failed", refusal="expired")})
    assert failed.members["d0"].assigned is None


def test_more_failures_than_allowed_end_it_at_once_and_spare_who_has_not_begun() -> None:
    opened = after(course(4, 2, failures=1), {})
    reports = {"d0": report("failed"), "d1": report("rolled_back"), "d2": report("verified")}
    reports["d3"] = report("downloading")
    ended = after(opened, reports)
    assert ended.state is RolloutState.FAILED
    assert states(ended) == {
        "d0": "failed", "d1": "failed", "d2": "assigned",
        "d3": "withdrawn", "d4": "withdrawn", "d5": "withdrawn",
    }  # fmt: skip
    assert [ended.members[f"d{n}"].assigned for n in range(6)] == [OLD, OLD, NEW, OLD, OLD, OLD]


def test_who_has_begun_is_seen_through_after_the_end() -> None:
    aborted = replace(after(course(2), {}), state=RolloutState.ABORTED)
    on_its_way = {"d0": report("staged"), "d1": report("testing")}
    assert decide(aborted, on_its_way, 1) == []
    ended = after(aborted, {"d0": runs(), "d1": report("failed")})
    assert states(ended) == {"d0": "done", "d1": "failed"}
    assert (ended.state, ended.members["d1"].assigned) == (RolloutState.ABORTED, OLD)


def test_an_abort_takes_back_what_nobody_has_begun_also_where_there_was_nothing() -> None:
    start = course(1, 1)
    start = replace(start, members={"d0": Member(1), "d1": Member(2)})
    aborted = replace(after(start, {}), state=RolloutState.ABORTED)
    assert decide(aborted, {}, 1)[0] == Withdraw(("d0", "d1"))
    assert after(aborted, {}).members["d0"].assigned is None


def test_an_abort_leaves_alone_what_a_waiting_device_was_assigned_by_hand() -> None:
    aborted = replace(after(course(1, 1), {}), state=RolloutState.ABORTED)
    by_hand = replace(aborted.members["d1"], assigned=NEWER)
    ended = after(replace(aborted, members={**aborted.members, "d1": by_hand}), {})
    assert [one.assigned for one in ended.members.values()] == [OLD, NEWER]


def test_a_pause_opens_no_wave_and_still_counts_failures() -> None:
    paused = replace(after(course(1, 1, soak_ms=0), {}), state=RolloutState.PAUSED)
    assert after(paused, {"d0": runs()}).waves[1].opened_ms is None
    assert after(paused, {"d0": report("failed")}).state is RolloutState.FAILED


@pytest.mark.parametrize("other", [NEWER, None])
def test_a_device_that_was_assigned_something_else_has_left_and_keeps_it(other: Goal | None) -> None:
    opened = after(course(1, 1), {})
    both = {name: replace(one, assigned=other) for name, one in opened.members.items()}
    moved = after(replace(opened, members=both, soak_ms=0), {})
    assert states(moved) == {"d0": "left", "d1": "left"}
    assert {one.assigned for one in moved.members.values()} == {other}
    assert moved.state is RolloutState.DONE


@pytest.mark.parametrize(
    "burnt", [report("rolled_back"), report("failed"), report("failed", refusal="failed_here")]
)
def test_what_failed_here_for_good_is_not_offered_again(burnt: UpdateReport) -> None:
    decisions = decide(course(1), {"d0": burnt}, 1)
    assert not any(isinstance(one, Assign) for one in decisions)
    assert End(RolloutState.FAILED, "1 failed, at most 0 may") in decisions


def test_an_earlier_refusal_that_may_have_passed_is_offered_again_and_not_held_against_it() -> None:
    expired = report("failed", refusal="expired", since=5)
    opened = after(course(1), {"d0": expired})
    assert states(opened) == {"d0": "assigned"}
    assert decide(opened, {"d0": expired}, 1) == []
    assert states(after(opened, {"d0": report("failed", refusal="expired", since=6)})) == {"d0": "failed"}


def test_a_report_of_another_release_says_nothing_of_this_one() -> None:
    opened = after(course(1), {})
    assert decide(opened, {"d0": report("failed", release=1)}, 1) == []


def test_a_state_that_only_newer_agents_know_counts_as_begun() -> None:
    assert has_begun(report("rewiring"), NEW)
    assert not has_begun(report("idle"), NEW)
    assert not has_begun(report("downloading"), NEW)
    assert not has_begun(None, NEW)


@st.composite
def courses(draw: st.DrawFn) -> Course:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    return course(*sizes, failures=draw(st.integers(0, 3)), soak_ms=draw(st.sampled_from([0, 10])))


ANY_REPORT = st.builds(
    report,
    st.sampled_from([*UpdateState, "rewiring"]),
    release=st.integers(1, 3),
    installed=st.integers(0, 3),
    refusal=st.sampled_from(["", "", "", "expired", "failed_here", "tampered"]),
    since=st.integers(0, 3),
)


def under_way(of: Course) -> list[Member]:
    return [one for one in of.members.values() if one.state is MemberState.ASSIGNED]


@settings(max_examples=400, deadline=None)
@given(courses(), st.data())
def test_whatever_devices_report_and_people_do(now: Course, data: st.DataObject) -> None:
    reports: dict[str, UpdateReport] = {}
    for step in range(1, 14):
        names = sorted(now.members)
        reports |= data.draw(st.dictionaries(st.sampled_from(names), ANY_REPORT, max_size=3))
        now = meddle(now, data)
        before, now_ms = now, step * 7
        decisions = decide(before, reports, now_ms)
        now = after(before, reports, now_ms)

        assert decide(now, reports, now_ms) == []
        check_waves(before, now, now_ms)
        check_assignments(before, now, decisions)
        check_failures(before, now, decisions)
        check_ends(before, now, reports)


def meddle(now: Course, data: st.DataObject) -> Course:
    """Somebody pauses, resumes or aborts; somebody assigns something else by hand."""
    action = data.draw(st.sampled_from(["", "", "", "pause", "resume", "abort", "assign"]))
    if action == "assign":
        name = data.draw(st.sampled_from(sorted(now.members)))
        changed = replace(now.members[name], assigned=data.draw(st.sampled_from([None, OLD, NEWER])))
        return replace(now, members={**now.members, name: changed})
    moves = {
        ("pause", RolloutState.RUNNING): RolloutState.PAUSED,
        ("resume", RolloutState.PAUSED): RolloutState.RUNNING,
        ("abort", RolloutState.RUNNING): RolloutState.ABORTED,
        ("abort", RolloutState.PAUSED): RolloutState.ABORTED,
    }
    return replace(now, state=moves.get((action, now.state), now.state))


def check_waves(before: Course, now: Course, now_ms: int) -> None:
    opened = [wave.opened_ms is not None for wave in now.waves]
    assert opened == sorted(opened, reverse=True), "no wave is skipped"
    assert sum(wave.opened_ms is not None and wave.ended_ms is None for wave in now.waves) <= 1
    for old, new in zip(before.waves, now.waves, strict=True):
        assert old.opened_ms in {None, new.opened_ms}, "no wave is opened twice"
        assert old.ended_ms in {None, new.ended_ms}
    for earlier, later in zip(now.waves, now.waves[1:], strict=False):
        if later.opened_ms is not None:
            assert earlier.ended_ms is not None
            assert later.opened_ms >= earlier.ended_ms + now.soak_ms


def check_assignments(before: Course, now: Course, decisions: list) -> None:
    open_waves = {
        n for n, wave in enumerate(now.waves, 1) if wave.opened_ms is not None and not wave.ended_ms
    }
    if now.state in {RolloutState.RUNNING, RolloutState.PAUSED}:
        assert {one.wave for one in under_way(now)} <= open_waves, "only the open wave is under way"
    new = [name for one in decisions if isinstance(one, Assign) for name in one.devices]
    assert len(new) == len(set(new))
    assert all(before.members[name].state is MemberState.WAITING for name in new)
    if before.state is not RolloutState.RUNNING:
        assert new == [], "nobody gets it while it is not running"
    for name, member in now.members.items():
        if member.state is MemberState.FAILED:
            assert member.assigned != NEW, "what failed does not stand"
        if before.members[name].state not in UNSETTLED:
            assert member == before.members[name], "an end is an end"


def check_failures(before: Course, now: Course, decisions: list) -> None:
    burnt = sum(
        before.members[name].state is MemberState.WAITING
        for one in decisions if isinstance(one, Settle)
        for name, member in one.members.items() if member.state is MemberState.FAILED
    )  # fmt: skip
    failed = now.count(MemberState.FAILED)
    assert failed <= max(now.max_failures, before.count(MemberState.FAILED)) + len(under_way(before)) + burnt
    if failed > now.max_failures:
        assert now.state in {RolloutState.FAILED, RolloutState.ABORTED}


def check_ends(before: Course, now: Course, reports: Mapping[str, UpdateReport]) -> None:
    if before.state not in {RolloutState.RUNNING, RolloutState.PAUSED}:
        assert now.state is before.state
    if now.state is RolloutState.DONE:
        assert set(states(now).values()) <= {"done", "failed", "left"}
    if now.state in {RolloutState.FAILED, RolloutState.ABORTED}:
        assert now.count(MemberState.WAITING) == 0
        unsettled = [name for name, one in now.members.items() if one.state is MemberState.ASSIGNED]
        assert all(has_begun(reports.get(name), NEW) for name in unsettled)
