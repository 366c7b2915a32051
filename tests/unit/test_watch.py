"""What the watch on the broker concludes, at which moment."""

from fleet_server.link.watch import DOWN_AFTER_S, QUIET_AFTER_S, Judgement


def linked(now_s: float = 0.0) -> Judgement:
    judgement = Judgement(now_s)
    judgement.see_link(now_s, is_linked=True)
    return judgement


def test_a_broker_that_never_came_is_missed_after_a_while() -> None:
    judgement = Judgement(100.0)
    assert judgement.raised(100.0 + DOWN_AFTER_S - 0.1) == {}
    assert set(judgement.raised(100.0 + DOWN_AFTER_S)) == {"broker.down"}


def test_a_short_restart_wakes_nobody_and_a_long_one_does_until_it_is_over() -> None:
    judgement = linked()
    judgement.see_link(1.0, is_linked=False)
    assert judgement.raised(1.0) == {}
    assert set(judgement.raised(DOWN_AFTER_S)) == {"broker.down"}
    judgement.see_link(60.0, is_linked=True)
    assert judgement.raised(60.0) == {}


def test_the_first_count_says_nothing_and_growth_does() -> None:
    judgement = linked()
    judgement.see_dropped(0.0, 500)
    assert judgement.raised(0.0) == {}
    judgement.see_dropped(10.0, 501)
    assert set(judgement.raised(10.0)) == {"broker.dropping"}
    assert "501" in judgement.raised(10.0)["broker.dropping"]


def test_it_is_over_when_the_count_stands_still() -> None:
    judgement = linked()
    judgement.see_dropped(0.0, 0)
    judgement.see_dropped(10.0, 3)
    judgement.see_dropped(20.0, 3)
    assert judgement.raised(10.0 + QUIET_AFTER_S - 0.1) != {}
    assert judgement.raised(10.0 + QUIET_AFTER_S) == {}


def test_a_restarted_broker_counts_from_zero() -> None:
    judgement = linked()
    judgement.see_dropped(0.0, 900)
    judgement.see_dropped(10.0, 0)
    assert judgement.raised(10.0) == {}
    judgement.see_dropped(20.0, 2)
    assert set(judgement.raised(20.0)) == {"broker.dropping"}
