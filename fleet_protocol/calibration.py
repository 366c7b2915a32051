"""When to trust a device's own answer: temperature and threshold from decisions whose truth is known.

Learn-then-Test (Angelopoulos et al., 2021) with fixed-sequence testing. From one split of the
scenarios come the temperature, which makes confidences honest, and a sequence of thresholds, from
the most promising one to ever laxer ones. On the other split each is tested in turn: "more than
``alpha`` of the answers kept above it are wrong" is rejected by an exact binomial tail of at most
``delta``; the last threshold before the first that is not rejected is the result. With probability
at least 1 - ``delta`` over the calibration split, at most ``alpha`` of what is kept is then wrong.

What the guarantee rests on, and what voids it:

* the decisions to come are drawn like those of calibration (exchangeability). Another season, a
  re-zoned district, a drifting sensor, other leaks, another share of leaks, another model: void;
* decisions are independent. Overlapping windows are not: take one a scenario and day. Days of one
  scenario count as independent here; where they fail together, give one day a scenario;
* it is a statement about the mean over all kept answers, not about each site or label.
"""

import csv
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise, takewhile
from typing import Final, NamedTuple

from fleet_protocol.errors import CalibrationError
from fleet_protocol.escalation import calibrated
from fleet_protocol.texts import _

COLUMNS: Final = ("scenario", "day", "confidence", "correct")
"""Columns that records must have; others are left alone."""

_FITTING_QUARTER: Final = 64
"""Of 256 equally likely first bytes: a quarter of the scenarios fit, the rest calibrate."""
_STEPS: Final = 20
"""Thresholds in the sequence. A finer one stops earlier, by more chances to stop."""
_DIGITS: Final = 4
"""Decimals of a threshold. It is tested as rounded, so that what is written is what was tested."""
_EDGE: Final = 1e-6
"""Confidences are kept this far from 0 and 1, where a logit ends."""
_LARGEST_TEMPERATURE: Final = 20.0
_HALVINGS: Final = 60


class Decision(NamedTuple):
    """One answer of a device on one day of a scenario, and whether it was right."""

    scenario: str
    day: int
    confidence: float
    """Probability of the label that was given, as the model says it, in (0, 1]."""
    correct: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out. ``threshold`` is none where no threshold holds: then everything is to be escalated."""

    temperature: float
    threshold: float | None
    """Least tempered confidence that is kept."""
    alpha: float
    delta: float
    n_fit: int
    n_cal: int
    kept: int
    """Decisions of the calibration split that the threshold keeps, and how many of them are wrong."""
    wrong: int


def parse(lines: Iterable[str]) -> list[Decision]:
    """The decisions that ``lines`` of a CSV with a head hold: ``scenario,day,confidence,correct``.

    Raises:
        CalibrationError: a column is missing, a value cannot be used, or a scenario's day stands twice.
    """
    reader = csv.DictReader(lines)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise CalibrationError(
            _("the records lack the columns {missing}; their first line must name {columns}").format(
                missing=", ".join(missing), columns=", ".join(COLUMNS)
            )
        )
    decisions: list[Decision] = []
    seen: set[tuple[str, int]] = set()
    for row in reader:
        decision = _decision(row, reader.line_num)
        if decision[:2] in seen:
            raise CalibrationError(
                _("line {line}: scenario {scenario} has day {day} twice; give one decision a day").format(
                    line=reader.line_num, scenario=decision.scenario, day=decision.day
                )
            )
        seen.add(decision[:2])
        decisions.append(decision)
    return decisions


def calibrate(decisions: Sequence[Decision], alpha: float, delta: float) -> Calibration:
    """Temperature and threshold at which at most ``alpha`` of the kept answers are wrong.

    Args:
        decisions: of many scenarios; each scenario serves either for fitting or for calibration.
        alpha: share of wrong answers among those kept, in (0, 1).
        delta: probability that the threshold does not hold it, in (0, 1).

    Raises:
        CalibrationError: alpha or delta out of range, or a split without decisions.
    """
    if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
        raise CalibrationError(_("alpha and delta must lie between 0 and 1"))
    fitting = [each for each in decisions if is_for_fitting(each.scenario)]
    testing = [each for each in decisions if not is_for_fitting(each.scenario)]
    if not (fitting and testing):
        raise CalibrationError(
            _(
                "{count} decisions are too few to fit and to calibrate on; give those of more scenarios"
            ).format(count=len(decisions))
        )
    temperature = fit_temperature(fitting)
    thresholds = _sequence(_tempered(fitting, temperature), len(testing), alpha)
    answers = _tempered(testing, temperature)
    tests = (_test(answers, threshold) for threshold in thresholds)
    passed = list(takewhile(lambda test: binomial_tail(test.wrong, test.kept, alpha) <= delta, tests))
    best = passed[-1] if passed else _Test(None, 0, 0)
    return Calibration(
        temperature, best.threshold, alpha, delta, len(fitting), len(testing), best.kept, best.wrong
    )


def is_for_fitting(scenario: str) -> bool:
    """Whether ``scenario`` belongs to the split for fitting: by its name alone, so that no order matters."""
    return sha256(scenario.encode()).digest()[0] < _FITTING_QUARTER


def fit_temperature(decisions: Sequence[Decision]) -> float:
    """The temperature at which the confidences of ``decisions`` explain best which were right.

    It minimizes the log loss, between 1/20 and 20.
    """
    logits = [_logit(each.confidence) for each in decisions]
    low, high = 1.0 / _LARGEST_TEMPERATURE, _LARGEST_TEMPERATURE
    # The loss is convex in the inverse temperature; its slope changes sign once.
    for _round in range(_HALVINGS):
        middle = (low + high) / 2
        slope = math.fsum(
            logit * (_sigmoid(middle * logit) - each.correct)
            for logit, each in zip(logits, decisions, strict=True)
        )
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(2.0 / (low + high), _DIGITS)


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """P(X <= ``successes``) of a binomial X, summed term by term; 1 where there are no trials."""
    if successes >= trials:
        return 1.0
    odds = math.log(probability), math.log1p(-probability)
    terms = (
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * odds[0]
            + (trials - count) * odds[1]
        )
        for count in range(successes + 1)
    )
    return min(1.0, math.fsum(terms))


class _Answer(NamedTuple):
    confidence: float
    """Tempered."""
    correct: bool


class _Test(NamedTuple):
    """A threshold on a split: how many it keeps, and how many of those are wrong."""

    threshold: float | None
    kept: int
    wrong: int


def _tempered(decisions: Iterable[Decision], temperature: float) -> list[_Answer]:
    return [_Answer(calibrated(each.confidence, temperature), each.correct) for each in decisions]


def _test(answers: Iterable[_Answer], threshold: float) -> _Test:
    kept = [answer.correct for answer in answers if answer.confidence >= threshold]
    return _Test(threshold, len(kept), kept.count(False))


def _sequence(fitting: Sequence[_Answer], testing: int, alpha: float) -> list[float]:
    """Thresholds from strict to lax, known before calibration is looked at.

    The first is the one that the split for fitting makes the most of: at the strictest so little is
    kept that nothing can be rejected, and the surest answers of a model need not be its best. Each lies
    halfway between two confidences seen there: those of an int8 model come in steps, and a threshold
    on one of them would be decided by rounding.
    """
    ranked = sorted((answer.confidence for answer in fitting), reverse=True)
    steps = sorted(set(ranked))
    below = [0.0, *(sum(pair) / 2 for pair in pairwise(steps))]
    wanted = [ranked[math.ceil(share / _STEPS * len(ranked)) - 1] for share in range(1, _STEPS + 1)]
    placed = sorted({round(below[bisect_left(steps, each)], _DIGITS) for each in wanted}, reverse=True)
    scale = testing / len(fitting)
    promises = [_promise(_test(fitting, threshold), scale, alpha) for threshold in placed]
    return placed[promises.index(min(promises)) :]


def _promise(seen: _Test, scale: float, alpha: float) -> float:
    """The tail that is to be expected on a split ``scale`` times as large as the one that gave ``seen``."""
    return binomial_tail(round(seen.wrong * scale), round(seen.kept * scale), alpha)


def _decision(row: dict[str, str | None], line: int) -> Decision:
    try:
        confidence = float(row["confidence"] or "")
        day = int(row["day"] or "")
        correct = {"0": False, "1": True}[row["correct"] or ""]
    except (ValueError, KeyError):
        raise CalibrationError(
            _("line {line}: day must be a whole number, confidence a number, correct 0 or 1").format(
                line=line
            )
        ) from None
    scenario = row["scenario"] or ""
    if not scenario or not 0.0 < confidence <= 1.0:
        raise CalibrationError(
            _("line {line}: scenario must not be empty, confidence lies above 0 and at most at 1").format(
                line=line
            )
        )
    return Decision(scenario, day, confidence, correct)


def _logit(confidence: float) -> float:
    inside = min(max(confidence, _EDGE), 1.0 - _EDGE)
    return math.log(inside / (1.0 - inside))


def _sigmoid(number: float) -> float:
    return 1.0 / (1.0 + math.exp(-number))
