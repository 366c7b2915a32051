"""Learn-then-Test: the mathematics, the guarantee over many draws, and records that cannot be used."""

import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.calibration import (
    Decision,
    binomial_tail,
    calibrate,
    fit_temperature,
    is_for_fitting,
    parse,
)
from fleet_protocol.errors import CalibrationError
from fleet_protocol.escalation import calibrated

HEAD = "scenario,day,confidence,correct"
SEEDS = 300
SHARPNESS = 0.6
"""Of the simulated model's logits, this much is true: it is over-confident."""
SPREAD = 6.0


def logistic(number: float) -> float:
    return 1.0 / (1.0 + math.exp(-number))


def right(confidence: float) -> float:
    """An over-confident model: how often it is right when it says ``confidence``."""
    return logistic(SHARPNESS * math.log(confidence / (1.0 - confidence)))


def draw(rng: random.Random, scenarios: int) -> list[Decision]:
    """One day each of ``scenarios`` independent scenarios."""
    decisions = []
    for _ in range(scenarios):
        confidence = logistic(abs(rng.gauss(0.0, SPREAD)))
        scenario = f"{rng.getrandbits(64):x}"
        decisions.append(Decision(scenario, 0, confidence, rng.random() < right(confidence)))
    return decisions


def errors_above() -> tuple[list[float], list[float]]:
    """Logits from high to low, and the true share of wrong answers from each upwards, by a fine sum."""
    logits = [step / 400 for step in range(12_000, 0, -1)]
    weights = [math.exp(-((logit / SPREAD) ** 2) / 2) for logit in logits]
    wrong = [w * (1 - logistic(SHARPNESS * z)) for w, z in zip(weights, logits, strict=True)]
    pairs = zip(accumulate(wrong), accumulate(weights), strict=True)
    return logits, [part / whole for part, whole in pairs]


LOGITS, ERRORS = errors_above()


def true_error(lowest: float) -> float:
    """Share of wrong answers among all answers of at least ``lowest`` confidence."""
    logit = math.log(lowest / (1 - lowest)) if lowest > 0.5 else 0.0
    return ERRORS[min(len(ERRORS) - 1, int(12_000 - 400 * logit))]


def uncalibrated(threshold: float, temperature: float) -> float:
    """The model's own confidence that ``threshold`` means at ``temperature``."""
    return logistic(temperature * math.log(threshold / (1.0 - threshold))) if threshold > 0 else 0.0


class TestBinomialTail:
    @given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 99))
    def test_it_is_the_exact_sum(self, successes: int, trials: int, percent: int) -> None:
        p = Fraction(percent, 100)
        exact = sum(
            math.comb(trials, count) * p**count * (1 - p) ** (trials - count)
            for count in range(min(successes, trials) + 1)
        )
        assert binomial_tail(successes, trials, percent / 100) == pytest.approx(float(exact), rel=1e-9)

    def test_nothing_kept_rejects_nothing(self) -> None:
        assert binomial_tail(0, 0, 0.05) == 1.0

    def test_it_holds_for_many_trials(self) -> None:
        assert binomial_tail(50_000, 1_000_000, 0.05) == pytest.approx(0.5, abs=0.01)


class TestTemperature:
    def test_a_known_over_confidence_is_found(self) -> None:
        assert fit_temperature(draw(random.Random(3), 20_000)) == pytest.approx(1 / SHARPNESS, rel=0.08)

    def test_a_model_that_is_always_right_stays_within_bounds(self) -> None:
        assert fit_temperature([Decision("a", 0, 0.8, True)] * 50) == pytest.approx(1 / 20, rel=1e-3)


class TestGuarantee:
    @pytest.mark.parametrize(("alpha", "delta"), [(0.05, 0.1), (0.1, 0.2)])
    def test_over_many_draws_it_is_broken_no_more_often_than_delta(self, alpha: float, delta: float) -> None:
        broken = found = 0
        for seed in range(SEEDS):
            result = calibrate(draw(random.Random(seed), 900), alpha, delta)
            if result.threshold is not None:
                found += 1
                broken += true_error(uncalibrated(result.threshold, result.temperature)) > alpha
        slack = 3 * math.sqrt(delta * (1 - delta) / SEEDS)
        assert broken / SEEDS <= delta + slack
        # A method that finds nothing breaks nothing.
        assert found > 0.9 * SEEDS

    def test_without_the_test_it_is_broken_far_more_often(self) -> None:
        alpha, broken = 0.05, 0
        for seed in range(SEEDS):
            decisions = sorted(draw(random.Random(seed), 675), key=lambda each: -each.confidence)
            broken += true_error(laxest(decisions, alpha)) > alpha
        assert broken / SEEDS > 0.3

    def test_the_threshold_keeps_what_it_says(self) -> None:
        decisions = draw(random.Random(1), 900)
        result = calibrate(decisions, 0.05, 0.1)
        assert result.threshold is not None
        testing = [each for each in decisions if not is_for_fitting(each.scenario)]
        kept = [
            each for each in testing if calibrated(each.confidence, result.temperature) >= result.threshold
        ]
        assert (result.n_cal, result.kept) == (len(testing), len(kept))
        assert result.wrong == sum(not each.correct for each in kept)
        assert result.n_fit + result.n_cal == len(decisions)
        assert 0.2 * len(decisions) < result.n_fit < 0.3 * len(decisions)

    def test_no_threshold_is_found_where_confidence_says_nothing(self) -> None:
        rng = random.Random(2)
        decisions = [each._replace(correct=rng.random() < 0.8) for each in draw(rng, 900)]
        result = calibrate(decisions, 0.05, 0.1)
        assert result.threshold is None
        assert (result.kept, result.wrong) == (0, 0)

    def test_everything_is_kept_where_everything_is_right(self) -> None:
        decisions = [each._replace(correct=True) for each in draw(random.Random(2), 400)]
        result = calibrate(decisions, 0.05, 0.1)
        assert result.kept == result.n_cal

    def test_all_days_of_a_scenario_are_in_one_split(self) -> None:
        decisions = [Decision(f"s{n}", day, 0.9, correct=True) for n in range(200) for day in range(3)]
        result = calibrate(decisions, 0.05, 0.1)
        assert result.n_fit % 3 == result.n_cal % 3 == 0

    def test_confidences_in_steps_are_parted_between_the_steps(self) -> None:
        rng = random.Random(4)
        steps = [logistic(0.5 * step) for step in range(1, 12)]
        decisions = [
            Decision(str(n), 0, confidence, rng.random() < right(confidence))
            for n, confidence in enumerate(rng.choices(steps, k=900))
        ]
        result = calibrate(decisions, 0.1, 0.1)
        assert result.threshold is not None
        cooled = [calibrated(step, result.temperature) for step in steps]
        assert min(abs(result.threshold - each) for each in cooled) > 0.005


def laxest(ranked: list[Decision], alpha: float) -> float:
    """What one would take without a test: the lowest confidence with the wanted share of errors seen."""
    wrong, lowest = 0, 1.0
    for count, decision in enumerate(ranked, 1):
        wrong += not decision.correct
        if wrong <= alpha * count:
            lowest = decision.confidence
    return lowest


class TestRecords:
    def test_columns_are_found_by_name_and_others_left_alone(self) -> None:
        lines = ["correct,gateway,scenario,confidence,day", "1,gw-7,a,0.75,9", "0,gw-8,a,1,10"]
        assert parse(lines) == [Decision("a", 9, 0.75, True), Decision("a", 10, 1.0, False)]

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([], "lack the columns scenario, day, confidence, correct"),
            (["scenario,day,correct", "a,1,1"], "lack the columns confidence"),
            ([HEAD, "a,1,0.5,1", "a,2,high,1"], "line 3"),
            ([HEAD, "a,1,0.5,yes"], "line 2"),
            ([HEAD, "a,1,0.5"], "line 2"),
            ([HEAD, "a,1.5,0.5,1"], "line 2"),
            ([HEAD, ",1,0.5,1"], "line 2: scenario must not be empty"),
            ([HEAD, "a,1,0,1"], "confidence lies above 0"),
            ([HEAD, "a,1,nan,1"], "confidence lies above 0"),
            ([HEAD, "a,1,1.01,1"], "confidence lies above 0"),
            ([HEAD, "a,1,0.5,1", "b,1,0.5,1", "a,1,0.6,0"], "line 4: scenario a has day 1 twice"),
        ],
    )
    def test_records_that_cannot_be_used_are_refused(self, lines: list[str], expected: str) -> None:
        with pytest.raises(CalibrationError, match=expected):
            parse(lines)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: calibrate(draw(random.Random(1), 100), 0.0, 0.1),
            lambda: calibrate(draw(random.Random(1), 100), 0.05, 1.0),
            lambda: calibrate([], 0.05, 0.1),
            lambda: calibrate([Decision("a", 0, 0.9, True)], 0.05, 0.1),
        ],
    )
    def test_what_gives_no_guarantee_is_refused(self, call: Callable[[], object]) -> None:
        with pytest.raises(CalibrationError):
            call()
