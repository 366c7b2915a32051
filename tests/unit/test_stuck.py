"""A meter that is stuck."""

from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.sensors.stuck import StuckWatch
from fleet_protocol.messages import MetricKind, Quality

PRESSURE = MetricSpec("pressure", "m", MetricKind.GAUGE)
COUNTER = MetricSpec("served", "1", MetricKind.COUNTER)


def judged(
    watch: StuckWatch, value: float | None, at_ms: int, metric: MetricSpec = PRESSURE
) -> tuple[Quality, list[str]]:
    samples, stuck = watch.judge([Sample(metric, value, Quality.GOOD, at_ms)])
    return samples[0].quality, stuck


def test_a_gauge_is_stuck_once_it_has_not_moved_for_long_enough() -> None:
    watch = StuckWatch(1.0)
    assert judged(watch, 4.0, 0) == (Quality.GOOD, [])
    assert judged(watch, 4.0, 999) == (Quality.GOOD, [])
    assert judged(watch, 4.0, 1000) == (Quality.SUSPECT, ["pressure"])


def test_the_smallest_change_sets_it_free() -> None:
    watch = StuckWatch(1.0)
    judged(watch, 4.0, 0)
    judged(watch, 4.0, 5000)
    assert judged(watch, 4.000000001, 6000) == (Quality.GOOD, [])
    assert judged(watch, 4.000000001, 6999) == (Quality.GOOD, [])
    assert judged(watch, 4.000000001, 7000)[1] == ["pressure"]


def test_a_counter_may_rest() -> None:
    watch = StuckWatch(1.0)
    judged(watch, 4.0, 0, COUNTER)
    assert judged(watch, 4.0, 60_000, COUNTER) == (Quality.GOOD, [])


def test_a_value_that_is_missing_is_not_stuck() -> None:
    watch = StuckWatch(1.0)
    judged(watch, None, 0)
    assert judged(watch, None, 60_000)[1] == []
