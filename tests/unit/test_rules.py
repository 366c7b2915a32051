"""Rules: streaks, pauses, uncertainty, failures; with real CEL expressions."""

from edge_agent.pipeline.rules import Rules
from fleet_protocol import policy as pl
from tests.support.manifests import small_manifest


def rules(*, time_factor: float = 1.0, **fields: object) -> Rules:
    rule = {"name": "leak", "when": "score > 0.5", "outcome": pl.Outcome.EVENT} | fields
    document = pl.Policy(
        format=1, name="p", version="1", release=1, model="pressure_leak", rules=(pl.Rule(**rule),)
    )
    return Rules(pl.CompiledPolicy(document, small_manifest()), time_factor)


def facts(score: float, pressure: float = 50.0) -> dict[str, pl.Value]:
    return {"label": "leak", "score": score, "confidence": score, "reading.pressure": pressure}


def acted(judge: Rules, scores: list[float], step_ms: int = 1000) -> list[bool]:
    return [bool(judge.judge(facts(score), place * step_ms).events) for place, score in enumerate(scores)]


def test_acts_after_its_number_of_windows_in_a_row() -> None:
    assert acted(rules(for_windows=3), [1, 1, 0, 1, 1, 1, 1]) == [False] * 5 + [True, True]


def test_pauses_after_it_acted_and_acts_again_while_it_holds() -> None:
    assert acted(rules(cooldown_s=3), [1] * 7) == [True, False, False, True, False, False, True]


def test_simulated_time_shortens_the_pause() -> None:
    assert acted(rules(cooldown_s=30, time_factor=10), [1] * 4) == [True, False, False, True]


def test_a_window_without_an_answer_breaks_the_row() -> None:
    judge = rules(for_windows=2)
    judge.judge(facts(1.0), 0)
    judge.interrupt()
    assert not judge.judge(facts(1.0), 1000).events
    assert judge.judge(facts(1.0), 2000).events


def test_an_uncertain_rule_marks_and_raises_no_event() -> None:
    verdict = rules(outcome=pl.Outcome.UNCERTAIN).judge(facts(0.9), 0)
    assert verdict.uncertain
    assert not verdict.events


def test_what_cannot_be_evaluated_does_not_act_and_is_told() -> None:
    judge = rules(when="1 / int(reading.pressure) > 0", for_windows=2)
    assert not judge.judge(facts(1.0, pressure=1.0), 0).failures
    verdict = judge.judge(facts(1.0, pressure=0.0), 1000)
    assert not verdict.events
    assert verdict.failures[0].startswith("leak: ")
    assert not judge.judge(facts(1.0, pressure=1.0), 2000).events, "the failure broke the row"
    assert judge.judge(facts(1.0, pressure=1.0), 3000).events


def test_rules_see_readings_and_labels() -> None:
    judge = rules(when="label == 'leak' && reading.pressure < 20.0")
    assert not judge.judge(facts(1.0, pressure=30.0), 0).events
    assert judge.judge(facts(1.0, pressure=10.0), 1000).events
