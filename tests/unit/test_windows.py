"""Windows: buckets, holding, starting anew."""

import random

import pytest

from edge_agent.pipeline.windows import MAX_HELD, Due, Windows
from fleet_protocol.manifest import Feature, FeatureKind


def feature(metric: str, length: int) -> Feature:
    return Feature(metric=metric, kind=FeatureKind.STANDARD, length=length)


def taken(windows: Windows, until: int) -> list[Due]:
    """What falls due by ``until``, with the windows copied: each lives for one turn."""
    found = []
    while windows.behind(until):
        due = windows.close(until)
        if due:
            found.append(due._replace(windows=[list(each) for each in due.windows]))
    return found


def added(windows: Windows, metric: str, value: float, mono_ms: int) -> list[Due]:
    found = taken(windows, mono_ms)
    windows.add(metric, value, mono_ms)
    return found


def fed(windows: Windows, values: dict[int, float], until: int, metric: str = "a") -> list[list[float]]:
    """Every window that falls due while ``values`` (by ms) come in."""
    found = [due for mono_ms, value in values.items() for due in added(windows, metric, value, mono_ms)]
    return [due.windows[0] for due in found + taken(windows, until)]


def test_gives_windows_oldest_first_once_full() -> None:
    windows = Windows([feature("a", 3)], step_s=1.0)
    assert fed(windows, {1000 * n: float(n) for n in range(6)}, 5000) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_a_bucket_is_the_mean_of_its_samples() -> None:
    windows = Windows([feature("a", 1)], step_s=1.0)
    # The first sample lies three quarters into its bucket: it ends at 250 ms.
    assert fed(windows, {0: 1.0, 200: 3.0, 300: 7.0, 1200: 9.0}, 1250) == [[2.0], [8.0]]


def test_a_sensor_read_once_a_step_may_come_late_or_early() -> None:
    windows = Windows([feature("a", 1)], step_s=1.0)
    noise = random.Random(1)
    values = {1000 * n + noise.randint(-200, 200): float(n) for n in range(1, 50)} | {50_000: 50.0}
    first = {0: 0.0}
    assert fed(windows, first | values, 50_500) == [[float(n)] for n in range(51)]


def test_a_missing_bucket_holds_the_last_value_at_most_four_times() -> None:
    windows = Windows([feature("a", 2)], step_s=1.0)
    held = fed(windows, {0: 1.0, 1000: 2.0}, 1000 * (2 + MAX_HELD))
    assert held == [[1.0, 2.0]] + [[2.0, 2.0]] * MAX_HELD
    assert fed(windows, {}, 60_000) == []
    assert fed(windows, {61_000: 5.0, 62_000: 6.0}, 63_000) == [[5.0, 6.0]]


def test_a_silence_of_years_is_passed_over_at_once() -> None:
    windows = Windows([feature("a", 1)], step_s=0.001)
    fed(windows, {0: 1.0}, 1)
    ten_years_ms = 10 * 365 * 86_400_000
    assert len(fed(windows, {ten_years_ms: 4.0}, ten_years_ms + 1)) == MAX_HELD + 1


def test_windows_of_one_model_fall_due_together() -> None:
    windows = Windows([feature("a", 2), feature("b", 1)], step_s=1.0)
    assert windows.metrics == ("a", "b")
    for mono_ms in range(0, 5000, 1000):
        assert not added(windows, "a", 1.0, mono_ms)
    assert not added(windows, "b", 7.0, 4100)
    (due,) = taken(windows, 4250)
    assert due.windows == [[1.0, 1.0], [7.0]]
    assert due.latest == [1.0, 7.0]


def test_a_metric_that_dies_stops_the_model_until_its_window_is_full_again() -> None:
    windows = Windows([feature("a", 1), feature("b", 2)], step_s=1.0)
    buckets = []
    for second in range(30):
        buckets += [due.bucket for due in added(windows, "a", 1.0, second * 1000)]
        if not 5 <= second < 15:
            buckets += [due.bucket for due in added(windows, "b", 1.0, second * 1000)]
    # b has values in buckets 0 to 4, holds four more, and is full again from its second new one on.
    assert buckets == [*range(1, 5 + MAX_HELD), *range(16, 29)]


def test_simulated_time_shortens_the_step() -> None:
    windows = Windows([feature("a", 2)], step_s=900.0, time_factor=3600.0)
    assert fed(windows, {0: 1.0, 250: 2.0, 500: 3.0}, 563) == [[1.0, 2.0], [2.0, 3.0]]


def test_late_samples_and_numbers_beyond_float32_are_left_out() -> None:
    windows = Windows([feature("a", 1)], step_s=1.0)
    assert fed(windows, {0: 1.0, 1000: 2.0}, 1100) == [[1.0]]
    assert fed(windows, {100: 99.0}, 1100) == []
    assert fed(windows, {1150: 1e39, 1160: float("nan"), 1170: float("inf")}, 1250) == [[2.0]]


def test_the_same_metric_may_serve_two_features() -> None:
    windows = Windows([feature("a", 1), feature("a", 3)], step_s=1.0)
    found = [due for second in range(4) for due in added(windows, "a", float(second), second * 1000)]
    assert [due.windows for due in found] == [[[2.0], [0.0, 1.0, 2.0]]]


def test_against_a_plain_reference() -> None:
    """Buckets by dictionary, windows by list: slow, obvious, and equal for random arrivals."""
    noise = random.Random(3)
    for _round in range(50):
        length = noise.randint(1, 7)
        windows = Windows([feature("a", length)], step_s=0.1)
        arrivals = {0: 1.0}
        clock = 0
        for _sample in range(60):
            clock += noise.choice([0, 5, 30, 100, 100, 100, 250, 600])
            arrivals[clock] = noise.uniform(-5, 5)
        assert fed(windows, arrivals, clock + 1000) == reference(arrivals, clock + 1000, length)


def reference(arrivals: dict[int, float], until: int, length: int) -> list[list[float]]:
    buckets: dict[int, list[float]] = {}
    for mono_ms, value in arrivals.items():
        buckets.setdefault((mono_ms + 75) // 100, []).append(value)
    series: list[float] = []
    found, held = [], 0
    for bucket in range((until + 75) // 100):
        values = buckets.get(bucket)
        held = 0 if values else held + 1
        if values:
            series.append(sum(values) / len(values))
        elif held > MAX_HELD:
            series = []
        elif series:
            series.append(series[-1])
        if len(series) >= length:
            found.append([pytest.approx(value, rel=1e-6, abs=1e-6) for value in series[-length:]])
    return found


def test_a_version_that_looks_back_less_does_not_cost_the_one_before_its_history() -> None:
    long = Windows([feature("a", 8)], 1.0)
    assert fed(long, {at: float(at) for at in range(0, 10_000, 1_000)}, 10_000)
    short = Windows([feature("a", 2)], 1.0)
    short.succeed(long)
    memory = short.memory()
    assert memory is not None
    restarted = Windows([feature("a", 2)], 1.0)
    assert restarted.restore_other(memory, short.layout, 0)
    for before in (short, restarted):
        again = Windows([feature("a", 8)], 1.0)
        again.succeed(before)
        assert again.layout.rings == ["a"]
        windows = fed(again, {11_000: 11_000.0}, 12_000)
        assert windows
        assert len(windows[0]) == 8


def test_what_was_kept_longer_goes_on_and_is_forgotten_in_a_silence() -> None:
    long = Windows([feature("a", 8)], 1.0)
    fed(long, {at: float(at) for at in range(0, 10_000, 1_000)}, 10_000)
    short = Windows([feature("a", 2)], 1.0)
    short.succeed(long)
    fed(short, {at: float(at) for at in range(10_000, 13_000, 1_000)}, 13_000)
    again = Windows([feature("a", 8)], 1.0)
    again.succeed(short)
    assert fed(again, {13_000: 13_000.0}, 14_000)[-1][-3:] == [11_000.0, 12_000.0, 13_000.0]
    fed(short, {40_000: 40_000.0}, 41_000)
    silent = Windows([feature("a", 8)], 1.0)
    silent.succeed(short)
    assert not fed(silent, {41_000: 41_000.0}, 42_000)
