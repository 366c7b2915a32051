"""What is planned, what a probation finds, and what is written down: the pure parts of updates."""

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent.pipeline.vitals import Pulse, Vitals
from edge_agent.updates import records
from edge_agent.updates.planner import Install, Keep, Refuse, Situation, Step, plan
from edge_agent.updates.probation import Verdict, judge
from edge_agent.updates.records import Installed
from edge_agent.updates.spoken import ENCODER, MAX_LINE, Done
from edge_agent.updates.trust import MAX_ORDERS
from fleet_protocol.targets import (
    BESIDE,
    Description,
    ImageFormat,
    Kind,
    Refusal,
    Requirements,
    Standing,
    Target,
    path_of,
)
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import OrderedVersion
from tests.support.updating import calm, model_artifact, policy_artifact

S = UpdateState
MODEL, NEWER, POLICY = model_artifact(1), model_artifact(2), policy_artifact(1)
KEY = MODEL.target.key


def for_device(target: Target, device: str = "gw-7") -> Target:
    return replace_target(target, device=device)


def situation(**changes: object) -> Situation:
    known: dict[str, object] = {
        "device": "gw-7", "having": {}, "busy": frozenset(), "standings": {}, "problems": lambda _each: [],
    }  # fmt: skip
    return Situation(**(known | changes))  # type: ignore[arg-type]


def steps(*targets: Target, **changes: object) -> list[object]:
    image = {target.path: target for target in (MODEL.target, NEWER.target, POLICY.target)}
    return list(plan(map(for_device, targets), image, situation(**changes)))


def test_models_come_before_the_policies_that_read_them() -> None:
    found = steps(POLICY.target, MODEL.target)
    assert found == [Install(for_device(MODEL.target)), Install(for_device(POLICY.target))]


def other(kind: Kind, name: str) -> Target:
    image = ImageFormat.RAUC if kind is Kind.OS else None
    described = Description(
        kind=kind, name=name, version="1", release=1, device="gw-7", requires=Requirements(image=image)
    )
    return Target(path_of(described), 100, hashlib.sha256(name.encode()).hexdigest(), described)


def planned(*orders: Target) -> list[Step]:
    image = {each.path: replace_target(each, device="") for each in orders}
    return plan(orders, image, situation())


def replace_target(target: Target, **changes: object) -> Target:
    described = replace(target.description, **changes)
    return Target(target.path, target.length, target.sha256, described)


def test_an_image_that_takes_days_comes_after_everything_else() -> None:
    orders = [other(kind, "one") for kind in (Kind.OS, Kind.POLICY, Kind.MODEL, Kind.AGENT)]
    kinds = [step.target.description.kind for step in planned(*orders)]
    assert kinds == [Kind.AGENT, Kind.MODEL, Kind.POLICY, Kind.OS]


@pytest.mark.attack
@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.OS])
def test_two_agents_or_systems_at_once_are_refused_or_the_board_would_go_to_and_fro(kind: Kind) -> None:
    for step in planned(other(kind, "one"), other(kind, "two")):
        assert isinstance(step, Refuse)
        assert step.refusal is Refusal.MALFORMED
    assert all(isinstance(step, Install) for step in planned(other(kind, "one"), other(Kind.MODEL, "two")))


def test_what_runs_is_kept_even_below_the_highest_release() -> None:
    standings = {KEY: Standing(highest=9)}
    assert steps(MODEL.target, having={KEY: MODEL.target.sha256}, standings=standings) == [
        Keep(for_device(MODEL.target))
    ]
    (refused,) = steps(MODEL.target, standings=standings)
    assert isinstance(refused, Refuse)
    assert refused.refusal is Refusal.ROLLBACK
    assert "9" in refused.detail


def test_a_board_that_does_not_fit_says_why() -> None:
    (refused,) = steps(MODEL.target, problems=lambda _each: ["too small", "too old"])
    assert refused == Refuse(for_device(MODEL.target), Refusal.WRONG_HARDWARE, "too small; too old")


# Probation.


@pytest.mark.parametrize(
    ("now", "before", "spent_s", "verdict"),
    [
        (calm(8), calm(), 300.0, Verdict.PASSED),
        (calm(8), calm(), 299.0, Verdict.WAIT),
        (calm(7), calm(), 300.0, Verdict.WAIT),
        (calm(0), calm(), 9e9, Verdict.WAIT),
        (calm(8, failures=1), calm(), 300.0, Verdict.PASSED),
        (calm(8, failures=2), calm(), 300.0, Verdict.FAILED),
        (calm(100, failures=4), calm(), 300.0, Verdict.PASSED),
        (calm(0, failures=2), calm(), 1.0, Verdict.FAILED),
        (calm(8, unclear=2), calm(), 300.0, Verdict.FAILED),
        (Vitals(answers=8, latencies_us=(49_000,) * 8), calm(), 300.0, Verdict.PASSED),
        (Vitals(answers=8, latencies_us=(51_000,) * 8), calm(), 300.0, Verdict.FAILED),
        (Vitals(answers=8, latencies_us=(51_000,) * 8), Vitals(), 300.0, Verdict.FAILED),
        (calm(8, alarms=4), calm(), 300.0, Verdict.PASSED),
        (calm(8, alarms=5), calm(), 300.0, Verdict.FAILED),
        (calm(8, alarms=8), calm(100, alarms=60), 300.0, Verdict.PASSED),
        (calm(8, alarms=8), Vitals(), 300.0, Verdict.PASSED),
        (calm(4, alarms=4), calm(), 1.0, Verdict.WAIT),
        (calm(8, raised=5), calm(), 300.0, Verdict.FAILED),
        (calm(8, alarms=0), calm(100, alarms=100), 300.0, Verdict.PASSED),
    ],
)
def test_a_probation(now: Vitals, before: Vitals, spent_s: float, verdict: Verdict) -> None:
    found, reason = judge(now, before, spent_s, least_s=300.0, least_windows=8)
    assert found is verdict
    assert bool(reason) == (verdict is Verdict.FAILED)


def test_a_score_that_is_no_number_is_no_answer() -> None:
    pulse = Pulse()
    pulse.answered(float("nan"), 10, alarm=True)
    pulse.answered(0.5, 10, alarm=False)
    assert (pulse.read().answers, pulse.read().failures, pulse.read().alarms) == (1, 1, 0)


# Records.


def test_what_is_usual_is_what_was_seen_of_late() -> None:
    """A month of calm, then a leak that is open: the next version is held against the leak."""
    pulse = Pulse()
    for _window in range(500):
        pulse.answered(0.1, 100, alarm=False)
    assert pulse.usual().alarms == 0
    for window in range(64):
        pulse.answered(0.9, 100, alarm=True)
        pulse.judged(raised=window % 8 == 0, unclear=False)
    assert (pulse.usual().answers, pulse.usual().alarms, pulse.usual().raised) == (64, 64, 8)
    assert (pulse.read().answers, pulse.read().alarms) == (564, 64)
    again = Pulse()
    again.restore(pulse.read())
    assert again.usual() == again.read()


def test_the_switch_and_the_way_back() -> None:
    installed = Installed().switched(MODEL.target).switched(NEWER.target)
    assert installed.switched(NEWER.target) == installed
    slot = installed.slot(KEY)
    assert (slot.current, slot.previous) == (NEWER.target, MODEL.target)
    back = installed.taken_back(NEWER.target)
    assert (back.slot(KEY).current, back.slot(KEY).previous) == (MODEL.target, None)
    assert back.taken_back(NEWER.target) == back
    assert not back.taken_back(MODEL.target).slots, "what came fitted runs again"


def test_what_failed_is_remembered_within_bounds() -> None:
    installed = Installed()
    for number in range(1100):
        described = replace(MODEL.target.description, name=f"model_{number}")
        installed = installed.with_failed(Target("x", 1, f"{number:064x}", described))
    assert len(installed.failed) == 1024
    assert installed.failed[-1].sha256 == f"{1099:064x}"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"])
def test_a_record_that_cannot_be_read_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / records.INSTALLED).write_bytes(content)
    assert records.load(tmp_path, Installed) == Installed()
    assert (tmp_path / "installed.json.unreadable").read_bytes() == content
    records.save(tmp_path, Installed().switched(MODEL.target))
    assert records.load(tmp_path, Installed).slot(KEY).current == MODEL.target


@pytest.mark.attack
def test_as_many_orders_as_there_may_be_are_told_in_one_line() -> None:
    kind, name, sha256 = Kind.POLICY, "n" * 63, "a" * 64
    order = OrderedVersion(kind=kind, name=name, version="𝄞" * 64, release=2**53, sha256=sha256)
    done = Done([(kind, name + BESIDE, sha256)] * MAX_ORDERS, [order] * MAX_ORDERS)
    assert len(ENCODER.encode(done)) < MAX_LINE
