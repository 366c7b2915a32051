"""Terms of delivery, pacing, and the ledger of what fetching costs: what is decided, without a line."""

import datetime as dt

import msgspec
import pytest

from edge_agent.updates import ledger as ledgers
from edge_agent.updates.ledger import Budget, Ledger, Now
from edge_agent.updates.pacing import Pace
from fleet_protocol import delivery
from fleet_protocol.delivery import ANY, DAY_MIN, Delivery
from fleet_protocol.errors import TargetError

NIGHT = Delivery(windows=("22:00-06:00",))
DAY_MS = 86_400_000


def at(clock: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"2026-11-24T{clock}:00+00:00")


@pytest.mark.parametrize(
    ("clock", "minutes"),
    [("21:59", 1), ("22:00", 0), ("23:59", 0), ("05:59", 0), ("06:00", 16 * 60), ("12:30", 570)],
)
def test_a_window_over_midnight_is_a_night(clock: str, minutes: int) -> None:
    assert delivery.shut_for_min([NIGHT], at(clock)) == minutes


def test_what_both_allow_is_allowed() -> None:
    early = Delivery(windows=("04:00-08:00", "12:00-13:00"))
    assert delivery.shut_for_min([NIGHT, early], at("23:00")) == 5 * 60
    assert delivery.shut_for_min([NIGHT, ANY], at("23:00")) == 0
    assert delivery.slower(0, 64, 16) == 16
    assert delivery.slower(0, 0) == 0


def test_windows_that_never_meet_are_said_to() -> None:
    noon = Delivery(windows=("12:00-13:00",))
    assert delivery.shut_for_min([NIGHT, noon], at("12:30")) > DAY_MIN


def test_a_window_that_ends_where_it_begins_is_the_whole_day() -> None:
    assert delivery.shut_for_min([Delivery(windows=("08:00-08:00",))], at("07:59")) == 0


@pytest.mark.parametrize(
    "terms",
    [
        {"windows": ["25:00-26:00"]},
        {"windows": ["22:00"]},
        {"max_kib_per_s": -1},
        {"faster": True},
        {"windows": ["22:00-06:00"] * 9},
        [],
    ],
)
def test_terms_that_cannot_be_read_are_refused(terms: object) -> None:
    with pytest.raises(TargetError):
        delivery.parse({delivery.CUSTOM: terms})


def test_terms_travel_unchanged_and_none_take_no_room() -> None:
    terms = Delivery(max_kib_per_s=8, windows=("22:00-06:00",))
    assert delivery.parse(delivery.custom_of(terms)) == terms
    assert delivery.decode(delivery.encode(terms)) == terms
    assert (delivery.custom_of(ANY), delivery.encode(ANY), delivery.parse(None)) == ({}, "", ANY)


@pytest.mark.parametrize("kib_per_s", [1, 16, 1000])
def test_no_more_comes_in_a_second_than_is_allowed(kib_per_s: int) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    pace = Pace(kib_per_s, lambda: clock[0], sleep)
    came = 0
    while clock[0] < 60.0:
        pace.spend(pace.piece)
        came += pace.piece
    rate = (came - pace.piece) / clock[0]
    assert 0.9 * kib_per_s * 1024 <= rate <= 1.01 * kib_per_s * 1024


def now(day: float, *, boot: str = "a", wall: bool = True) -> Now:
    ms = int(day * DAY_MS)
    return Now(1_800_000_000_000 + ms if wall else 0, boot, ms)


BUDGET = Budget(times=3.0, seconds=1000.0, period_s=7 * 86_400.0, spare=100)


def spent(began: Now) -> Ledger:
    return ledgers.spend(ledgers.renew(Ledger(), BUDGET, began), 3100, 500.0)


def test_what_came_for_nothing_is_spent_too() -> None:
    ledger = spent(now(0))
    assert ledgers.left_bytes(ledger, BUDGET, 1000) == 0
    assert ledgers.left_bytes(ledger, BUDGET, 2000) == 3000
    assert ledgers.left_s(ledger, BUDGET) == 500.0


@pytest.mark.parametrize(
    ("later", "is_renewed"),
    [
        (now(6.9), False),
        (now(7.1), True),
        (now(7.1, boot="b"), True),
        (now(7.1, wall=False), True),
        (now(7.1, boot="b", wall=False), False),
    ],
    ids=["too early", "a week", "a week and a boot", "a week of this boot", "a boot, and no clock"],
)
def test_a_budget_renews_when_a_period_is_known_to_be_over(later: Now, is_renewed: bool) -> None:
    ledger = ledgers.renew(spent(now(0)), BUDGET, later)
    assert (ledgers.left_bytes(ledger, BUDGET, 1000) > 0) is is_renewed
    assert ledger.fetched == 3100, "what it cost in all is not forgotten"


def test_a_clock_that_comes_to_its_senses_begins_to_count_then() -> None:
    blind = spent(now(0, wall=False))
    ledger = ledgers.renew(blind, BUDGET, now(300, boot="b"))
    assert ledgers.left_bytes(ledger, BUDGET, 1000) == 0
    assert ledgers.left_bytes(ledgers.renew(ledger, BUDGET, now(307.1, boot="b")), BUDGET, 1000) > 0


def test_a_wall_clock_that_was_ahead_does_not_hold_a_budget_for_years() -> None:
    ahead = msgspec.structs.replace(spent(now(0)), began=now(4000, boot="z"))
    ledger = ledgers.renew(ahead, BUDGET, now(1))
    assert ledgers.renews_in_s(ledger, BUDGET, now(1)) == 7 * 86_400.0
