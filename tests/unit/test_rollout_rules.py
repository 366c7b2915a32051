"""The rules of a rollout: what a wave may be, and how a group is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.errors import RulesError
from fleet_server.updates.rollout_rules import Rules, check, cut

NAMES = [f"gw-{number:03}" for number in range(100)]


def sizes(*waves: str, devices: int) -> list[int]:
    return [len(wave) for wave in cut(Rules(waves=waves), NAMES[:devices], "seed")]


@pytest.mark.parametrize(
    ("waves", "devices", "expected"),
    [
        (("10%", "50%", "100%"), 100, [10, 40, 50]),
        (("10%", "50%", "100%"), 1, [1]),
        (("10%", "50%", "100%"), 3, [1, 1, 1]),
        (("10%", "50%", "100%"), 15, [2, 6, 7]),
        (("1%", "2%", "100%"), 10, [1, 9]),
        (("1", "5", "100%"), 12, [1, 4, 7]),
        (("1", "10%", "100%"), 40, [1, 3, 36]),
        (("2", "100"), 8, [2, 6]),
    ],
)
def test_each_wave_says_how_much_has_it_in_all(
    waves: tuple[str, ...], devices: int, expected: list[int]
) -> None:
    assert sizes(*waves, devices=devices) == expected


@given(
    st.lists(st.integers(1, 99), min_size=0, max_size=5, unique=True).map(sorted),
    st.integers(1, 100),
    st.text(max_size=5),
)
def test_every_device_is_in_one_wave_and_the_first_has_one(shares: list[int], count: int, seed: str) -> None:
    rules = Rules(waves=(*(f"{share}%" for share in shares), "100%"))
    check(rules)
    waves = cut(rules, NAMES[:count], seed)
    assert sorted(device for wave in waves for device in wave) == NAMES[:count]
    assert all(waves)
    assert waves == cut(rules, reversed(NAMES[:count]), seed)


def test_another_rollout_begins_with_other_devices() -> None:
    firsts = {cut(Rules(waves=("1", "100%")), NAMES, str(seed))[0][0] for seed in range(50)}
    assert len(firsts) > 25


@pytest.mark.parametrize("wave", ["0%", "101%", "-5", "0", "ten", "10 %", "5.5%", "", "٣%"])
def test_what_is_no_wave(wave: str) -> None:
    with pytest.raises(RulesError, match="is no wave"):
        check(Rules(waves=(wave, "100%")))


@pytest.mark.parametrize("waves", [("50%", "50%"), ("50%", "10%", "100%"), ("5", "3", "100%")])
def test_waves_must_grow(waves: tuple[str, ...]) -> None:
    with pytest.raises(RulesError, match="must grow"):
        check(Rules(waves=waves))


def test_nobody_is_left_out_by_accident() -> None:
    with pytest.raises(RulesError, match="leaves out 90 of 100"):
        cut(Rules(waves=("10%",)), NAMES, "seed")
