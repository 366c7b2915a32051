"""The pipeline with a real model in this process: what samples bring about."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.inference.session import open_session
from edge_agent.pipeline.pipeline import Model, Pipeline, Processed
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.service.health import HealthBoard
from fleet_protocol import messages as ms
from fleet_protocol import policy as pl
from tests.support import models

SIGNAL = MetricSpec("signal", "1", ms.MetricKind.GAUGE)
STEP_MS = 1000


class FixedClock:
    """What dates health codes."""

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def health() -> HealthBoard:
    return HealthBoard(FixedClock())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.autoencoder(tmp_path / "autoencoder")


@pytest.fixture
def pipeline(folder: Path, health: HealthBoard) -> Iterator[Pipeline]:
    session = open_session(folder, isolation="none", runtime=models.INSTALLED[0])
    policy = pl.CompiledPolicy(pl.parse(POLICY), session.manifest)
    yield Pipeline([Model(session, policy)], health)
    session.close()


POLICY = b"""
format = 1
name = "watch"
version = "1"
release = 1
model = "autoencoder"
[[rules]]
name = "strange"
when = "label == 'strange' && reading.signal > 0.0"
outcome = "event"
severity = "critical"
text = "Something is strange"
cooldown_s = 1000
[[rules]]
name = "unsure"
when = "confidence < 0.9"
outcome = "uncertain"
[[rules]]
name = "fragile"
when = "7 / (int(reading.signal) - 3) != 0"
outcome = "event"
cooldown_s = 100000
"""


def feed(pipeline: Pipeline, values: list[float | None], start: int = 0) -> list[Processed]:
    """One sample a step."""
    found = []
    for place, value in enumerate(values, start):
        quality = ms.Quality.BAD if value is None else ms.Quality.GOOD
        found.append(pipeline.process([Sample(SIGNAL, value, quality, place * STEP_MS)], place * STEP_MS))
    return found


def test_a_normal_signal_is_told_and_raises_nothing(pipeline: Pipeline, folder: Path) -> None:
    normal = list(models.golden_inputs(folder)[0])
    found = feed(pipeline, [*normal, *normal[:3]])
    assert [len(each.inferences) for each in found] == [0] * 64 + [1] * 3
    answer = found[64].inferences[0]
    assert (answer.offset_ms, answer.model, answer.version, answer.label) == (0, "autoencoder", "1", "normal")
    assert answer.score < 1.0 < 2 * answer.confidence
    ms.decode(ms.Channel.TELEMETRY, ms.encode(batch(found[64])))


def test_a_strange_signal_raises_one_event_with_its_figures(pipeline: Pipeline) -> None:
    found = feed(pipeline, [float(place % 7) for place in range(80)])
    events = [event for each in found for event in each.events if event.name == "strange"]
    (event,) = events
    assert event.severity is ms.Severity.CRITICAL
    assert (event.source, event.text) == ("autoencoder", "Something is strange")
    assert event.values.keys() == {"score", "confidence", "signal"}
    assert event.values["score"] > 1.0


def test_an_answer_near_the_threshold_is_marked_uncertain(pipeline: Pipeline, folder: Path) -> None:
    # Between the two, on a line from what the model knows to what it does not.
    normal = models.golden_inputs(folder)[0]
    marks = set()
    for share in range(40):
        mixed = [value + 0.02 * share * (-1) ** place for place, value in enumerate(normal)]
        found = feed(pipeline, [*mixed, mixed[-1]], start=share * 1000)
        marks |= {(each.confidence < 0.9, each.uncertain) for one in found for each in one.inferences}
    assert marks == {(True, True), (False, False)}


def test_a_rule_that_fails_is_told_until_all_rules_work(pipeline: Pipeline, health: HealthBoard) -> None:
    feed(pipeline, [3.5] * 65)
    (report,) = health.reports()
    assert report.code == "policy.rule_failed"
    assert report.detail.startswith("autoencoder: fragile: ")
    feed(pipeline, [4.5, 4.5], start=65)
    assert health.reports() == []


def test_bad_and_suspect_samples_do_not_reach_the_model(pipeline: Pipeline) -> None:
    assert not any(each.inferences for each in feed(pipeline, [None] * 70))
    suspect = Sample(SIGNAL, 1.0, ms.Quality.SUSPECT, 0)
    assert not any(pipeline.process([suspect], at * STEP_MS).inferences for at in range(100, 170))


def test_other_metrics_are_nothing_to_it(pipeline: Pipeline) -> None:
    other = MetricSpec("other", "1", ms.MetricKind.GAUGE)
    for place in range(70):
        sample = Sample(other, 1.0, ms.Quality.GOOD, place * STEP_MS)
        assert pipeline.process([sample], place * STEP_MS) == ([], [])


def batch(processed: Processed) -> ms.Telemetry:
    base = ms.TimeBase("0" * 16, 0, 0, ms.ClockState.TRUSTED)
    return ms.Telemetry("0" * 16, 1, base, [], [], processed.inferences)
