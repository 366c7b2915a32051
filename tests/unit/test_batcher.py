"""The batcher: times, definitions, limits, and what it leaves out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import BUILD_MS
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.telemetry.batcher import Batcher, Draft
from fleet_protocol.messages import (
    MAX_PAYLOAD,
    MAX_RECORDS,
    ClockState,
    Event,
    Events,
    Inference,
    MetricKind,
    Quality,
    Severity,
    Stream,
    Telemetry,
    decode,
)
from tests.support.drafts import FLOW, PRESSURE, HandClock

EPOCH = "0123456789abcdef"


def sample(value: float | None, mono_ms: int, metric: MetricSpec = FLOW) -> Sample:
    return Sample(metric, value, Quality.GOOD, mono_ms)


def written(draft: Draft) -> Telemetry | Events:
    message = decode(draft.stream.channel, draft.write(EPOCH, 7, list(draft.metrics)))
    assert isinstance(message, Telemetry | Events)
    return message


def test_times_are_offsets_from_the_instant_of_the_cut_on_both_clocks() -> None:
    clock = HandClock(wall_ms=BUILD_MS + 10_000, mono_ms=50_000)
    batcher = Batcher(clock)
    batcher.add_samples([sample(1.0, 50_000)])
    clock.advance(400)
    # The clock is set between reading and cutting: the reading is dated by what is known at the cut.
    clock.wall += 3_600_000
    batcher.add_inferences([Inference(0, "leak", "1", "ok", 0.1, 0.9, 30)], 50_300)
    batcher.add_events([Event(-100, "leak", Severity.INFO, "", "test", {})], 50_300)
    draft, events = batcher.cut()
    said = written(events)
    assert isinstance(said, Events)
    assert said.events[0].offset_ms == -200
    batch = written(draft)
    assert isinstance(batch, Telemetry)
    assert (batch.base.mono_ms, batch.base.wall_ms) == (50_400, BUILD_MS + 10_400 + 3_600_000)
    assert batch.readings[0].offset_ms == -400
    assert batch.inferences[0].offset_ms == -100
    assert (draft.oldest_wall_ms, draft.newest_wall_ms) == (
        batch.base.wall_ms - 400,
        batch.base.wall_ms - 100,
    )
    assert batcher.cut() == []


@pytest.mark.parametrize("wall_ms", [0, 3_000, 4_070_908_800_000])
def test_a_clock_in_1970_or_2099_is_said_in_every_batch(wall_ms: int) -> None:
    batcher = Batcher(HandClock(wall_ms=wall_ms, mono_ms=100_000))
    batcher.add_samples([sample(1.0, 10)])
    (draft,) = batcher.cut()
    assert written(draft).base.clock is ClockState.UNTRUSTED
    assert draft.oldest_wall_ms >= 0


def test_metrics_keep_their_numbers_and_each_draft_names_what_it_uses() -> None:
    batcher = Batcher(HandClock())
    batcher.add_samples([sample(1.0, 0), sample(2.0, 0, PRESSURE)])
    (first,) = batcher.cut()
    batcher.add_samples([sample(3.0, 0, PRESSURE)])
    (second,) = batcher.cut()
    assert [(metric.id, metric.name) for metric in first.metrics] == [(0, "flow"), (1, "pressure")]
    assert [metric.id for metric in second.metrics] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_told_as_bad(value: float) -> None:
    batcher = Batcher(HandClock())
    batcher.add_samples([sample(value, 0)])
    batch = written(batcher.cut()[0])
    assert isinstance(batch, Telemetry)
    assert (batch.readings[0].value, batch.readings[0].quality) == (None, Quality.BAD)


def test_what_no_message_can_carry_is_left_out_and_blocks_nothing() -> None:
    batcher = Batcher(HandClock())
    batcher.add_inferences(
        [
            Inference(0, "leak", "1", "ok", math.nan, 0.9, 30),
            Inference(0, "leak", "1", "x" * 201, 0.1, 0.9, 30),
            Inference(0, "leak", "1", "fine", 0.1, 0.9, 30),
        ],
        0,
    )
    batcher.add_events([Event(0, "a", Severity.INFO, "line\nbreak", "test", {})], 0)
    (draft,) = batcher.cut()
    batch = written(draft)
    assert isinstance(batch, Telemetry)
    assert [inference.label for inference in batch.inferences] == ["fine"]


@given(
    readings=st.lists(st.floats(allow_nan=True), max_size=30),
    repeat=st.integers(1, 400),
    label=st.text(alphabet="aé漢", max_size=150),
    inferences=st.integers(0, 300),
    events=st.integers(0, 60),
    metrics=st.integers(1, 500),
)
def test_every_draft_is_a_message_within_its_limits(
    readings: list[float], repeat: int, label: str, inferences: int, events: int, metrics: int
) -> None:
    batcher = Batcher(HandClock())
    specs = [MetricSpec("m" * 55 + f"{n:08}", "漢" * 16, MetricKind.GAUGE) for n in range(metrics)]
    added = readings * repeat
    for number, value in enumerate(added):
        batcher.add_samples([sample(value, 0, specs[number % metrics])])
    batcher.add_inferences([Inference(0, "m" * 64, "v" * 64, label, 0.5, 0.5, 2**40)] * inferences, 0)
    values = {f"value-{number}": 1.5 for number in range(64)}
    batcher.add_events([Event(0, "leak", Severity.INFO, label, "test", values)] * events, 0)
    drafts = batcher.cut()
    assert sum(draft.records for draft in drafts) == len(added) + inferences + events
    for draft in drafts:
        assert draft.records <= MAX_RECORDS
        assert len(draft.write(EPOCH, 2**53, list(draft.metrics))) <= MAX_PAYLOAD
        written(draft)


def test_a_full_draft_is_told() -> None:
    batcher = Batcher(HandClock())
    assert not batcher.full
    batcher.add_samples([sample(1.0, 0)] * (MAX_RECORDS + 1))
    assert batcher.full
    assert [draft.stream for draft in batcher.cut()] == [Stream.TELEMETRY] * 2
    assert not batcher.full
