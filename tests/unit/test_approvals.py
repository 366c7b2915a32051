"""Who has to agree to a change, and what follows: decided without a database."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.approvals.decision import (
    ProposalState,
    Question,
    Step,
    Vote,
    agreeing,
    approvals_needed,
    beholden,
    next_state,
    state_at,
    verdict,
)
from fleet_server.approvals.plans import (
    Difference,
    Plan,
    Radius,
    Touched,
    change_text,
    differs,
    radius_text,
    seal,
)

ENDED = frozenset(ProposalState) - {ProposalState.PROPOSED, ProposalState.APPROVED}
SHA = "a" * 64


def question(needed: int = 1, state: ProposalState = ProposalState.PROPOSED) -> Question:
    return Question(state, "olga", SHA, needed, 1000)


def yes(person: str, sha256: str = SHA, *, may: bool = True) -> Vote:
    return Vote(person, True, sha256, may)


VOTES = st.lists(
    st.builds(
        Vote,
        st.sampled_from(["olga", "anna", "ben", "cleo"]),
        st.booleans(),
        st.sampled_from([SHA, "b" * 64]),
        st.booleans(),
    ),
    max_size=8,
)


@given(st.lists(st.sampled_from(list(Step)), max_size=12))
def test_what_has_ended_never_moves_and_nothing_is_executed_unapproved(steps: list[Step]) -> None:
    state, been = ProposalState.PROPOSED, [ProposalState.PROPOSED]
    for step in steps:
        after = next_state(state, step)
        if state in ENDED:
            assert after is None
        state = after or state
        been.append(state)
    if state in {ProposalState.EXECUTED, ProposalState.STALE}:
        assert ProposalState.APPROVED in been


@given(VOTES, st.integers(0, 5), st.integers(0, 2000))
def test_only_enough_other_people_who_may_and_saw_the_same_carry_it(
    votes: list[Vote], needed: int, now_ms: int
) -> None:
    due = verdict(question(needed), votes, now_ms)
    people = {vote.person for vote in votes if vote.agrees and vote.may_approve and vote.sha256 == SHA}
    if due is Step.APPROVE:
        assert len(people - {"olga"}) >= needed
        assert now_ms < 1000
        assert all(vote.agrees for vote in votes)
    assert "olga" not in agreeing(question(needed), votes)
    assert due in {None, Step.APPROVE, Step.REJECT, Step.EXPIRE}


@given(VOTES, st.sampled_from(sorted(ENDED)))
def test_what_has_ended_is_decided_no_more(votes: list[Vote], state: ProposalState) -> None:
    assert verdict(question(0, state), votes, 0) is None


@pytest.mark.attack
def test_nobody_counts_twice() -> None:
    assert verdict(question(2), [yes("anna"), yes("anna")], 0) is None
    assert verdict(question(2), [yes("anna"), yes("ben")], 0) is Step.APPROVE


@pytest.mark.attack
def test_the_proposer_never_counts() -> None:
    assert verdict(question(), [yes("olga")], 0) is None


@pytest.mark.attack
def test_an_account_that_was_given_by_one_of_the_proposers_is_the_proposers() -> None:
    given = [("olga", "anna"), ("anna", "ben"), ("ben", "olga"), ("cleo", "dora"), ("olga", "olga")]
    assert beholden("olga", given) == {"anna", "ben"}
    assert beholden("dora", given) == frozenset()


def test_an_approval_of_other_words_is_none() -> None:
    assert verdict(question(), [yes("anna", "b" * 64)], 0) is None


@pytest.mark.attack
def test_who_may_no_more_does_not_count() -> None:
    assert verdict(question(), [yes("anna", may=False)], 0) is None


def test_one_no_ends_it() -> None:
    assert verdict(question(), [yes("anna"), Vote("ben", False, SHA, True)], 0) is Step.REJECT


def test_what_waits_too_long_has_expired() -> None:
    assert state_at(question(), 999) is ProposalState.PROPOSED
    assert state_at(question(), 1000) is ProposalState.EXPIRED
    assert verdict(question(0), [], 1000) is Step.EXPIRE


@pytest.mark.parametrize(
    ("rules", "sites", "needed"),
    [
        ({}, ["north"], 1),
        ({}, [], 1),
        ({("", ""): 2}, ["north"], 2),
        ({("north", ""): 0}, ["north"], 0),
        ({("north", ""): 0}, ["north", "south"], 1),
        ({("north", ""): 0, ("south", ""): 2}, ["north", "south"], 2),
        ({("", "rollout.start"): 2, ("north", ""): 0}, ["north"], 0),
        ({("north", "rollout.start"): 3, ("north", ""): 0}, ["north"], 3),
        ({("north", "device.assign"): 3}, ["north"], 1),
        ({("", "rollout.start"): 2, ("", ""): 0}, ["north"], 2),
    ],
)
def test_the_strictest_site_decides(rules: dict, sites: list[str], needed: int) -> None:
    assert approvals_needed(rules, "rollout.start", sites) == needed


DEVICES = (Touched("gw-1", "north", 1, 1), Touched("gw-2", "", None, None))


def plan(*diff: Difference, devices: tuple[Touched, ...] = DEVICES, everywhere: bool = False) -> Plan:
    radius = Radius(("",), 2, everywhere=True) if everywhere else Radius.of(devices)
    return Plan(diff or (Difference("leak", {"1": 1}, {"2": 2}),), radius, list)


def held(after: Plan, before: Plan | None = None) -> str | None:
    shown = before or plan()
    return differs(change_text("x", {}, shown), radius_text(shown.radius), after)


def test_what_is_as_it_was_shown_holds() -> None:
    assert held(plan()) is None


def test_a_device_that_catches_up_changes_nothing() -> None:
    assert held(plan(devices=(Touched("gw-1", "north", 1, 9), DEVICES[1]))) is None


@pytest.mark.parametrize(
    "devices",
    [
        DEVICES[:1],
        (*DEVICES, Touched("gw-3", "")),
        (Touched("gw-1", "south", 1, 1), DEVICES[1]),
        (Touched("gw-1", "north", 2, 1), DEVICES[1]),
    ],
    ids=["one less", "one more", "moved", "given something else"],
)
def test_another_radius_does_not_hold(devices: tuple[Touched, ...]) -> None:
    assert held(plan(devices=devices)) == "radius"


def test_another_diff_does_not_hold() -> None:
    assert held(plan(Difference("leak", {"1": 2}, {"2": 2}))) == "leak"
    assert held(plan(Difference("leak", {"1": 1}, {"2": 2}), Difference("more", None, 1))) == "more"


def test_everywhere_stays_everywhere() -> None:
    assert held(plan(everywhere=True), plan(everywhere=True)) is None


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=4), st.text(max_size=9))
def test_the_seal_is_of_every_word(arguments: dict[str, int], reason: str) -> None:
    change, radius = change_text("x", arguments, plan()), radius_text(plan().radius)
    assert json.loads(change)["arguments"] == arguments
    same = seal("1", "olga", reason, change, radius)
    assert same == seal("1", "olga", reason, change_text("x", dict(arguments), plan()), radius)
    others = [
        ("2", "olga", reason, change, radius),
        ("1", "anna", reason, change, radius),
        ("1", "olga", f"{reason}.", change, radius),
        ("1", "olga", reason, f"{change} ", radius),
        ("1", "olga", reason, change, f"{radius} "),
    ]
    assert same not in {seal(*each) for each in others}
