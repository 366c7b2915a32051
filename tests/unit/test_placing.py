"""Which time a record gets: trusted, repaired, or quarantined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.messages import LAST_WALL_MS, ClockState, TimeBase
from fleet_server.telemetry.placing import AHEAD_MS, FLOOR_MS, Placement, Sent, parse_sent, place

NOW = 1_800_000_000_000
BOOT, OTHER = "00000000000000b1", "00000000000000b2"
DAY = 86_400_000


def base(wall_ms: int, clock: ClockState = ClockState.TRUSTED, mono_ms: int = 10_000) -> TimeBase:
    return TimeBase(BOOT, mono_ms, wall_ms, clock)


def test_a_trusted_clock_is_believed() -> None:
    placed = place(base(NOW - 3000), NOW, None)
    assert placed.time_of(-20) == (NOW - 3020, Placement.TRUSTED)


def test_a_spool_of_weeks_keeps_its_times() -> None:
    placed = place(base(NOW - 30 * DAY), NOW, Sent(BOOT, 10_000 + 30 * DAY))
    assert placed.time_of(0) == (NOW - 30 * DAY, Placement.TRUSTED)


@pytest.mark.parametrize("wall_ms", [0, FLOOR_MS - 1, NOW + AHEAD_MS + 1, LAST_WALL_MS])
def test_an_incredible_clock_is_not_believed_though_it_says_so(wall_ms: int) -> None:
    assert place(base(wall_ms), NOW, None).time_of(5) == (NOW, Placement.QUARANTINED)
    repaired = place(base(wall_ms), NOW, Sent(BOOT, 10_700))
    assert repaired.time_of(5) == (NOW - 700 + 5, Placement.REPAIRED)


def test_an_untrusted_clock_is_not_believed_though_it_looks_right() -> None:
    placed = place(base(NOW, ClockState.UNTRUSTED), NOW, None)
    assert placed.time_of(-500) == (NOW, Placement.QUARANTINED)


@pytest.mark.parametrize(
    "sent", [None, Sent(OTHER, 10_700), Sent(BOOT, 9_999), Sent(BOOT, 10_000 + NOW), Sent(BOOT, 2**53)]
)
def test_without_a_credible_age_the_time_of_receiving_stands(sent: Sent | None) -> None:
    assert place(base(0, ClockState.UNTRUSTED), NOW, sent).time_of(7) == (NOW, Placement.QUARANTINED)


@pytest.mark.parametrize("offset_ms", [-(2**40), 2**40, AHEAD_MS + 1])
def test_an_offset_out_of_bounds_is_quarantined_alone(offset_ms: int) -> None:
    placed = place(base(NOW), NOW, None)
    assert placed.time_of(offset_ms) == (NOW, Placement.QUARANTINED)
    assert placed.time_of(0) == (NOW, Placement.TRUSTED)


@given(
    wall_ms=st.integers(0, LAST_WALL_MS),
    clock=st.sampled_from(ClockState),
    offset_ms=st.integers(-(2**40), 2**40),
    sent=st.none() | st.builds(Sent, st.sampled_from([BOOT, OTHER]), st.integers(0, 2**53)),
)
def test_no_clock_can_date_a_record_before_the_floor_or_beyond_tomorrow(
    wall_ms: int, clock: ClockState, offset_ms: int, sent: Sent | None
) -> None:
    time_ms, state = place(base(wall_ms, clock), NOW, sent).time_of(offset_ms)
    assert FLOOR_MS <= time_ms <= NOW + AHEAD_MS
    assert state in set(Placement)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (f"{BOOT}:123", Sent(BOOT, 123)),
        (None, None),
        ("", None),
        (f"{BOOT}:", None),
        (f"{BOOT}:-1", None),
        (f"{BOOT}:1\n", None),
        ("b1:1", None),
        (f"{BOOT}:{'9' * 400}", None),
    ],
)
def test_the_user_property_is_read_or_ignored(text: str | None, sent: Sent | None) -> None:
    assert parse_sent(text) == sent
