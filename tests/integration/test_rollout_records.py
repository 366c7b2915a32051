"""Rollouts in both databases: what starts, what is written with each step, and what is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_server.database.models import Twin, TwinHalf
from fleet_server.devices.groups import set_group
from fleet_server.devices.registry import get_device
from fleet_server.errors import RolloutConflict, RolloutNotFound, RulesError
from fleet_server.updates import fitness
from fleet_server.updates.hints import Due, doubt, note, outstanding
from fleet_server.updates.rollout_pages import list_rollouts
from fleet_server.updates.rollout_rules import Rules
from fleet_server.updates.rollouts import Action, Order
from tests.support.actors import SOMEBODY
from tests.support.rollouts import (
    TENANT,
    act,
    add_fleet,
    assigned,
    begin,
    digest,
    give,
    launch,
    move_on,
    page,
    publish,
    states_of,
    tell,
    update,
    waves_of,
)

NEW, OLD = digest("leak", 2), digest("leak", 1)


@pytest.fixture
def fleet(engine: Engine) -> list[str]:
    """Ten devices that shall have, and run, release 1."""
    names = add_fleet(engine, 10)
    publish(engine, 1, 2, 3)
    give(engine, names, 1)
    for name in names:
        tell(engine, name, update(1, "committed"))
    return names


def finish(engine: Engine, devices: list[str], release: int = 2) -> None:
    for name in devices:
        tell(engine, name, update(release, "committed", installed=release))


def test_it_goes_wave_by_wave_to_the_end(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "10%", "50%", "100%")
    waves = waves_of(engine, identity)
    assert [len(wave) for wave in waves] == [1, 4, 5]
    had: set[str] = set()
    for wave in waves:
        assert move_on(engine) == 1
        had |= set(wave)
        assert {name for name, what in assigned(engine).items() if what == NEW} == had
        assert move_on(engine) == 0
        finish(engine, wave)
    assert move_on(engine) == 1
    found = page(engine, identity)
    assert (found.rollout.state, found.rollout.counts["done"]) == ("done", 10)
    assert found.rollout.ended_ms is not None
    assert all(wave.state == "ended" for wave in found.waves)
    assert move_on(engine) == 0


def test_the_soak_is_waited_for(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "1", "100%", soak_s=60)
    move_on(engine, 1_000)
    finish(engine, waves_of(engine, identity)[0])
    move_on(engine, 2_000)
    assert page(engine, identity).waves[0].next_ms == 62_000
    assert move_on(engine, 61_999) == 0
    assert move_on(engine, 62_000) == 1
    assert page(engine, identity).waves[1].state == "open"


def test_the_desired_half_says_what_is_assigned_and_its_version_is_the_hint(
    engine: Engine, fleet: list[str]
) -> None:
    note(engine, outstanding(engine, 100), 5)
    begin(engine)
    move_on(engine)
    desired = get_device(engine, TENANT, "gw-03").desired
    assert desired is not None
    assert desired["assignments"] == [
        {"kind": "model", "name": "leak", "version": "2.0", "release": 2, "sha256": NEW, "mode": "act"}
    ]
    assert [(hint.device, hint.version) for hint in outstanding(engine, 100)] == [(name, 2) for name in fleet]


def test_too_many_failures_end_it_and_give_back_what_was(engine: Engine, fleet: list[str]) -> None:
    give(engine, ["gw-09"], None)
    identity = begin(engine, failures=1)
    move_on(engine)
    assert set(assigned(engine).values()) == {NEW}
    tell(engine, "gw-00", update(2, "rolled_back", installed=0))
    tell(engine, "gw-01", update(2, "rolled_back", installed=1))
    tell(engine, "gw-02", update(2, "probation", installed=2))
    finish(engine, ["gw-03"])
    move_on(engine)
    found = page(engine, identity)
    assert (found.rollout.state, found.rollout.detail) == ("failed", "2 failed, at most 1 may")
    states = states_of(engine, identity)
    assert [states[f"gw-0{n}"] for n in range(5)] == ["failed", "failed", "assigned", "done", "withdrawn"]
    now = assigned(engine)
    assert now.pop("gw-02") == now.pop("gw-03") == NEW
    assert "gw-00" not in now, "release 1 does not run there, and it would refuse the way back"
    assert "gw-09" not in now, "it had none"
    assert set(now.values()) == {OLD}
    tell(engine, "gw-02", update(2, "rolled_back"))
    move_on(engine)
    assert assigned(engine)["gw-02"] == OLD
    assert page(engine, identity).rollout.counts["failed"] == 3


def test_an_abort_is_complete_when_it_returns_without_any_loop(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "5", "100%")
    move_on(engine)
    tell(engine, waves_of(engine, identity)[0][0], update(2, "staged"))
    act(engine, identity, Action.ABORT)
    assert page(engine, identity).rollout.state == "aborted"
    assert sorted(assigned(engine).values()) == sorted([NEW] + [OLD] * 9)
    for action in Action:
        with pytest.raises(RolloutConflict, match="is aborted"):
            act(engine, identity, action)


def test_a_pause_holds_the_next_wave_until_it_is_resumed(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "1", "100%")
    move_on(engine)
    act(engine, identity, Action.PAUSE)
    finish(engine, waves_of(engine, identity)[0])
    move_on(engine)
    assert [wave.state for wave in page(engine, identity).waves] == ["ended", "waiting"]
    act(engine, identity, Action.RESUME)
    assert page(engine, identity).waves[1].state == "open"


def test_a_device_that_is_not_there_holds_the_wave_and_is_named(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine)
    tell(engine, "gw-04", update(1, "committed"), online=False)
    move_on(engine)
    held = {device.id: device for device in page(engine, identity).waves[0].devices}
    assert [name for name, device in held.items() if device.is_holding] == ["gw-04"]
    assert held["gw-04"].presence == "offline"
    assert assigned(engine)["gw-04"] == NEW


def test_a_device_assigned_by_hand_meanwhile_has_left(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "1", "100%")
    move_on(engine)
    first, second = waves_of(engine, identity)
    give(engine, [first[0], second[0]], 3)
    move_on(engine)
    states = states_of(engine, identity)
    assert states[first[0]] == states[second[0]] == "left"
    assert assigned(engine)[first[0]] == assigned(engine)[second[0]] == digest("leak", 3)


def test_a_second_rollout_of_the_name_over_the_same_devices_is_refused(
    engine: Engine, fleet: list[str]
) -> None:
    first = begin(engine, where="id=gw-00")
    with pytest.raises(RolloutConflict, match=f"{first} moves 1 of these devices .*: gw-00"):
        begin(engine, release=3, group="others")
    begin(engine, release=3, group="others", where="id=gw-01")
    publish(engine, 1, name="flow")
    begin(engine, release=1, name="flow")
    act(engine, first, Action.ABORT)
    begin(engine, release=3, where="id=gw-00")


def test_two_starts_at_once_are_one_start_and_one_refusal(engine: Engine, fleet: list[str]) -> None:
    set_group(engine, TENANT, SOMEBODY, "all", "")
    barrier = threading.Barrier(4)

    def try_to_start(release: int) -> str:
        barrier.wait()
        try:
            return launch(engine, Order("all", Kind.MODEL, "leak", release, Rules(waves=("100%",)), "race"))
        except RolloutConflict:
            return ""

    with ThreadPoolExecutor(4) as pool:
        assert sum(map(bool, pool.map(try_to_start, (1, 2, 2, 3)))) == 1


def test_what_cannot_start_leaves_nothing(engine: Engine, fleet: list[str]) -> None:
    with pytest.raises(RolloutNotFound, match="no release 9 of model 'leak' here \\(there are: 1, 2, 3\\)"):
        begin(engine, release=9)
    with pytest.raises(RolloutNotFound, match="there are: none"):
        begin(engine, name="nothing")
    with pytest.raises(RulesError, match="the group holds no devices"):
        begin(engine, where="id=nobody")
    with pytest.raises(RulesError, match="leaves out"):
        begin(engine, "50%")
    with pytest.raises(RolloutNotFound, match="no rollout 'x'"):
        act(engine, "x", Action.PAUSE)
    assert list_rollouts(engine, TENANT, "", 10) == []


def test_devices_that_it_does_not_fit_are_in_no_wave(
    engine: Engine, fleet: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(_artifact: object, profile: str) -> list[str]:
        return ["It needs 512 MiB."] if profile == "small" else []

    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE device SET profile = 'small' WHERE id = 'gw-05'")
    monkeypatch.setattr(fitness, "problems", too_small)
    identity = begin(engine)
    (left_out,) = page(engine, identity).left_out
    assert (left_out.id, left_out.state, left_out.detail) == ("gw-05", "left", "It needs 512 MiB.")
    move_on(engine)
    assert assigned(engine)["gw-05"] == OLD
    assert page(engine, identity).rollout.counts["assigned"] == 9
    with pytest.raises(RulesError, match="nothing to roll out to: It needs 512 MiB"):
        begin(engine, where="id=gw-05", group="small", release=3)


def test_two_loops_at_once_open_a_wave_once(engine: Engine, fleet: list[str]) -> None:
    identity = begin(engine, "5", "100%")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _n: move_on(engine), range(8))) == 1
    assert page(engine, identity).rollout.counts["assigned"] == 5
    with Session(engine) as session:
        versions = {
            session.get_one(Twin, (TENANT, name, TwinHalf.DESIRED)).version
            for name in waves_of(engine, identity)[0]
        }
    assert versions == {2}


def test_the_list_is_newest_first_and_paged(engine: Engine, fleet: list[str]) -> None:
    made = [begin(engine, group=f"g{n}", where=f"id=gw-0{n}") for n in range(5)]
    listed = list_rollouts(engine, TENANT, "", 3)
    rest = list_rollouts(engine, TENANT, listed[-1].id, 3)
    assert {one.id for one in listed + rest} == set(made)
    times = [one.created_ms for one in listed + rest]
    assert times == sorted(times, reverse=True)


def test_hints_are_outstanding_until_noted_and_doubted_ones_again(engine: Engine, fleet: list[str]) -> None:
    due = outstanding(engine, 4)
    assert due == [Due(TENANT, name, 1) for name in fleet[:4]]
    note(engine, due[:2], 1_000)
    note(engine, due[2:], 9_000)
    assert [hint.device for hint in outstanding(engine, 100)] == fleet[4:]
    doubt(engine, 5_000)
    assert [hint.device for hint in outstanding(engine, 100)] == fleet[2:]
    give(engine, ["gw-00"], 2)
    assert Due(TENANT, "gw-00", 2) in outstanding(engine, 100)
