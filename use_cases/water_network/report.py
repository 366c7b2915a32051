"""The report on held-out leaks and on the real record: ``python -m use_cases.water_network.report``.

Everything is simulated afresh from seeds and computed with the committed models; nothing in it is a
time, so a second run writes the same file.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.manifest import Runtime
from use_cases.water_network import flow_report, models_folder
from use_cases.water_network.alarms import Scores, alarms_per_week, first_alarm, tune_threshold
from use_cases.water_network.detectors import (
    BASELINES,
    MODEL_ALARM,
    STEPS_A_WEEK,
    TARGET_PER_WEEK,
    Detector,
    Series,
    model_score,
    series_of,
)
from use_cases.water_network.markdown import table as markdown
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.runtimes import Model, float_model, open_model
from use_cases.water_network.scenarios import (
    SEARCH_DAYS,
    SIZE_CLASSES,
    Case,
    Split,
    frames,
    leak_cases,
    quiet_cases,
    tuning_cases,
)
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.windows import LEAK_LIMIT, WINDOW

MODEL: Final = "pressure_leak"
_STEPS_AN_HOUR: Final = STEPS_A_DAY // 24
_RARE_PER_WEEK: Final = 0.25
"""A stricter point: one false alarm a gateway in four weeks."""


@dataclass(frozen=True, slots=True)
class LeakSeries:
    """A leak as its guard sees it."""

    case: Case
    series: Series
    start: int
    """Place of the leak's first step among the scores."""


@dataclass(frozen=True, slots=True)
class Material:
    """Every series that is scored; of the quiet ones, a gateway's place is the place modulo their number."""

    tuning: list[Series]
    quiet: list[Series]
    leaks: list[LeakSeries]


@dataclass(frozen=True, slots=True)
class Scored:
    """A detector's scores of the material, in the same order."""

    detector: Detector
    tuning: list[Scores]
    quiet: list[Scores]
    leaks: list[Scores]


@dataclass(frozen=True, slots=True)
class Result:
    """What a detector does on held-out scenarios at one threshold."""

    name: str
    false_per_week: float
    hours: tuple[float, ...]
    """From the leak's start to the alarm, one a leak; infinite if it is not found in time."""


def main() -> None:
    """Write ``REPORT.md`` beside this file."""
    material = Material(_quiet(tuning_cases()), _quiet(quiet_cases(Split.HELD_OUT)), _leaks())
    baselines, models = ([_scored(each, material) for each in some] for some in (BASELINES, _models()))
    results = [_result(each, _tuned(each, TARGET_PER_WEEK), material) for each in baselines]
    results += [_result(each, 0.5, material) for each in models]
    rare = [_result(each, _tuned(each, _RARE_PER_WEEK), material) for each in (*baselines, models[0])]
    text = _TEMPLATE.format(
        leaks=len(material.leaks),
        quiet_weeks=round(_weeks(material.quiet)),
        tuning_weeks=round(_weeks(material.tuning)),
        table=_table(results, material.leaks),
        rare=_table(rare, material.leaks),
        gateways=_by_gateway(models[0], material),
        agreement=_agreement(models),
        flow=flow_report.text(),
    )
    Path(__file__).with_name("REPORT.md").write_text(text, encoding="utf-8")
    print(text)


def _models() -> tuple[Detector, Detector, Detector]:
    folder = models_folder() / MODEL
    return (
        Detector("model, int8, LiteRT", model_score(open_model(folder, Runtime.LITERT)), MODEL_ALARM),
        Detector("model, int8, OpenVINO", model_score(open_model(folder, Runtime.OPENVINO)), MODEL_ALARM),
        Detector("model, float", model_score(_limited(float_model(MODEL))), MODEL_ALARM),
    )


def _limited(model: Model) -> Model:
    """``model`` with inputs that end where those of int8 do, as it was fitted."""
    return lambda rows: model(np.clip(rows, -LEAK_LIMIT, LEAK_LIMIT))


def _leaks() -> list[LeakSeries]:
    cases = list(leak_cases(Split.HELD_OUT))
    return [_leak_series(case, frame) for case, frame in zip(cases, frames(cases), strict=True)]


def _leak_series(case: Case, frame: Frame) -> LeakSeries:
    guard, leak = case.guarded()
    return LeakSeries(case, series_of(frame, guard), leak.start_step - WINDOW + 1)


def _quiet(cases: Iterable[Case]) -> list[Series]:
    return [series_of(frame, place) for frame in frames(cases) for place in range(len(GATEWAYS))]


def _scored(detector: Detector, material: Material) -> Scored:
    return Scored(
        detector,
        [detector.score(each) for each in material.tuning],
        [detector.score(each) for each in material.quiet],
        [detector.score(each.series) for each in material.leaks],
    )


def _tuned(scored: Scored, per_week: float) -> float:
    return tune_threshold(scored.tuning, scored.detector.rule, STEPS_A_WEEK, per_week)


def _result(scored: Scored, threshold: float, material: Material) -> Result:
    detector = scored.detector
    rate = alarms_per_week(scored.quiet, threshold, detector.rule, STEPS_A_WEEK)
    pairs = zip(scored.leaks, material.leaks, strict=True)
    return Result(detector.name, rate, tuple(_hours(detector, threshold, *pair) for pair in pairs))


def _hours(detector: Detector, threshold: float, scores: Scores, leak: LeakSeries) -> float:
    searched = scores[leak.start : leak.start + SEARCH_DAYS * STEPS_A_DAY]
    return (first_alarm(searched, threshold, detector.rule) + 1) / _STEPS_AN_HOUR


def _weeks(series: Sequence[Series]) -> float:
    return sum(len(each.rows) for each in series) / STEPS_A_WEEK


def _table(results: Sequence[Result], leaks: Sequence[LeakSeries]) -> str:
    sizes = [f"{size.name} {size.low_ls:g}-{size.high_ls:g} L/s" for size in SIZE_CLASSES]
    rows = [
        ["detector", "false alarms a gateway-week", *sizes, "all, 24 h", "all, 72 h", "median delay by size"]
    ]
    rows += [_table_row(result, leaks) for result in results]
    return markdown(rows)


def _table_row(result: Result, leaks: Sequence[LeakSeries]) -> list[str]:
    by_size = [
        [hours for hours, leak in zip(result.hours, leaks, strict=True) if leak.case.size is size]
        for size in SIZE_CLASSES
    ]
    return [
        result.name,
        f"{result.false_per_week:.2f}",
        *(_share(hours, 24) for hours in by_size),
        _share(result.hours, 24),
        _share(result.hours, 24 * SEARCH_DAYS),
        ", ".join(_median(hours) for hours in by_size) + " h",
    ]


def _share(hours: Sequence[float], limit: float) -> str:
    return f"{sum(each <= limit for each in hours) / len(hours):.2f}"


def _median(hours: Sequence[float]) -> str:
    found = [each for each in hours if math.isfinite(each)]
    return f"{statistics.median(found):.1f}" if found else "none"


def _by_gateway(scored: Scored, material: Material) -> str:
    rows = [["gateway", "false alarms a week", "leaks", "found in 24 h"]]
    hours = _result(scored, 0.5, material).hours
    for place, gateway in enumerate(GATEWAYS):
        own = scored.quiet[place :: len(GATEWAYS)]
        rate = alarms_per_week(own, 0.5, scored.detector.rule, STEPS_A_WEEK)
        ours = [each for each, leak in zip(hours, material.leaks, strict=True) if leak.case.guard == place]
        rows.append([gateway.name, f"{rate:.2f}", str(len(ours)), str(sum(each <= 24 for each in ours))])
    return markdown(rows)


def _agreement(models: Sequence[Scored]) -> str:
    litert, openvino, real = (np.concatenate([*each.quiet, *each.leaks]) > 0.5 for each in models)
    windows = str(len(litert))
    return markdown(
        [
            ["compared", "windows", "equal labels"],
            ["LiteRT and OpenVINO, both int8", windows, _equal(litert, openvino)],
            ["LiteRT int8 and float", windows, _equal(litert, real)],
            ["OpenVINO int8 and float", windows, _equal(openvino, real)],
        ]
    )


def _equal(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> str:
    return f"{float(np.mean(first == second)):.4f}"


_TEMPLATE: Final = """# Leak watching: what the models find

Written by `python -m use_cases.water_network.report` (extras `water`, `litert`, `openvino`); do not edit.

## Leaks in the simulated network

{leaks} leaks at junctions, with demand and at hours that training never had, each watched by the one gateway
whose district it is in; {quiet_weeks} gateway-weeks without a leak. Every threshold was placed on
{tuning_weeks} other gateway-weeks, of training, at one false alarm per gateway-week; what it then comes to on
held-out weeks is in the table. A leak is found if its guard raises an alarm within 24 (or 72) hours.

An alarm once a gateway-week by pure chance would "find" 0.13 of all leaks in 24 hours and 0.35 in 72, so the
24-hour columns are the ones to read. Shares by size are of those found within 24 hours; delays are medians
over the leaks found within 72.

{table}

### At one false alarm per gateway in four weeks

The same detectors with their thresholds placed at a quarter of the false alarms.

{rare}

### By gateway (LiteRT, int8)

{gateways}

### Do the runtimes agree?

Labels at score 0.5, where the alarm is, over every held-out window.

{agreement}

{flow}"""


if __name__ == "__main__":
    main()
