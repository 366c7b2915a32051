"""The user-space link: what becomes of each packet."""

import random

import pytest

from hil.relay import QUEUE_BYTES, Conditions, Direction


def way(name: str = "up", seed: int = 7) -> Direction:
    return Direction(name, random.Random(seed))


def test_a_good_link_delivers_at_once() -> None:
    assert way().due(1000, 5.0, Conditions()) == 5.0


def test_delay_and_rate_add_up() -> None:
    due = way().due(1000, 5.0, Conditions(delay_ms=100, rate_kbit=80))
    assert due == pytest.approx(5.0 + 0.1 + 0.1)


def test_packets_wait_for_each_other_on_a_slow_line() -> None:
    line, slow = way(), Conditions(rate_kbit=80)
    assert [line.due(1000, 5.0, slow) for _packet in range(3)] == pytest.approx([5.1, 5.2, 5.3])


def test_a_full_queue_drops() -> None:
    line, slow = way(), Conditions(rate_kbit=8)
    line.waiting = QUEUE_BYTES
    assert line.due(1, 5.0, slow) is None
    assert line.dropped == 1


@pytest.mark.parametrize(("cut", "passes"), [("none", True), ("down", True), ("up", False), ("both", False)])
def test_a_cut_stops_its_own_way_alone(cut: str, *, passes: bool) -> None:
    assert (way("up").due(100, 0.0, Conditions(cut=cut)) is not None) is passes


def test_loss_and_disorder_are_as_asked_and_repeat_with_the_seed() -> None:
    conditions = Conditions(delay_ms=100, loss=0.2, reorder=0.3)
    first = [
        way_due for line in [way()] for way_due in (line.due(100, 0.0, conditions) for _each in range(4000))
    ]
    again = [
        way_due for line in [way()] for way_due in (line.due(100, 0.0, conditions) for _each in range(4000))
    ]
    assert first == again
    lost = sum(due is None for due in first) / len(first)
    late = sum(due is not None and due > 0.11 for due in first) / (len(first) * (1 - lost))
    assert lost == pytest.approx(0.2, abs=0.03)
    assert late == pytest.approx(0.3, abs=0.03)
