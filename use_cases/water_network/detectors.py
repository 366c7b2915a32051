"""What is compared in the report: detectors that give a score at every step of a gateway's readings.

The leak model, and what a utility would use without one: the flow of last night, the least pressure
of the week, and a control chart (an exponentially weighted moving average) of the flow against the
same quarter of an hour on the seven days before. The numbers of the chart were chosen on the leaks
of training, as the best of λ 0.03 to 0.1, limits of 2 to 4 spreads and one or four steps in a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from use_cases.water_network.alarms import AlarmRule, Scores
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.sensors import Frame
from use_cases.water_network.windows import LEAK_FEATURES, WINDOW, inputs

STEPS_A_WEEK: Final = 7 * STEPS_A_DAY
TARGET_PER_WEEK: Final = 1.0
"""False alarms a gateway-week that every detector is tuned to."""
MODEL_ALARM: Final = AlarmRule(for_windows=8, cooldown=STEPS_A_DAY // 4)
"""Two hours in a row; the same numbers as in ``policies/leak.toml``."""
ONCE: Final = AlarmRule(for_windows=1, cooldown=MODEL_ALARM.cooldown)

_CHART_MEMORY: Final = 0.05
_CHART_LIMIT: Final = 2.0
_NIGHT: Final = slice(2 * STEPS_A_DAY // 24, 5 * STEPS_A_DAY // 24)
"""02:00 to 05:00, when people use least."""
_FLOW_FLOOR: Final = LEAK_FEATURES[1].scale
_HOUR: Final = STEPS_A_DAY // 24

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Series:
    """One gateway's readings, and the model's input at every step from ``WINDOW - 1`` on."""

    pressure: Floats
    flow: Floats
    rows: Floats


def series_of(frame: Frame, place: int) -> Series:
    """The series of the gateway at ``place`` in ``sites.GATEWAYS``."""
    metrics = frame.metrics(place)
    ends = np.arange(WINDOW - 1, len(metrics["flow"]))
    return Series(metrics["pressure"], metrics["flow"], inputs(LEAK_FEATURES, metrics, ends))


@dataclass(frozen=True, slots=True)
class Detector:
    """A score at every step from ``WINDOW - 1`` on, and how it becomes alarms."""

    name: str
    score: Callable[[Series], Scores]
    rule: AlarmRule


def night_flow(series: Series) -> Scores:
    """How far last night's flow is from those of the seven nights before, over their spread."""
    days = len(series.flow) // STEPS_A_DAY
    nights = series.flow[: days * STEPS_A_DAY].reshape(days, STEPS_A_DAY)[:, _NIGHT].mean(axis=1)
    before = sliding_window_view(nights, 7)[:-1]
    spread = np.maximum(before.std(axis=1), _FLOW_FLOOR)
    scores = np.abs(nights[7:] - before.mean(axis=1)) / spread
    last_night = (np.arange(WINDOW - 1, len(series.flow)) - _NIGHT.stop + 1) // STEPS_A_DAY
    return np.asarray(scores[last_night - 7], dtype=np.float32)


def least_pressure(series: Series) -> Scores:
    """How far the last hour's pressure is below the least of the seven days before today, in m."""
    week = sliding_window_view(series.pressure, WINDOW)[:, : WINDOW - STEPS_A_DAY]
    hour = sliding_window_view(series.pressure, _HOUR)[WINDOW - _HOUR :]
    return np.asarray(week.min(axis=1) - hour.mean(axis=1))


def control_chart(series: Series) -> Scores:
    """A moving average of the flow's seasonal difference, whichever way it goes."""
    differences = np.clip(series.rows[:, 2 * STEPS_A_DAY - 1], -_CHART_LIMIT, _CHART_LIMIT)
    averages = np.empty_like(differences)
    average = 0.0
    for step, difference in enumerate(differences.tolist()):
        average += _CHART_MEMORY * (difference - average)
        averages[step] = average
    return np.abs(averages)


BASELINES: Final = (
    Detector("night flow", night_flow, ONCE),
    Detector("least pressure", least_pressure, ONCE),
    Detector("EWMA chart of flow", control_chart, ONCE),
)


def model_score(run: Callable[[Floats], Floats]) -> Callable[[Series], Scores]:
    """The score that an agent would give with the classifier ``run``: the probability of the alarm label."""

    def score(series: Series) -> Scores:
        logits = run(series.rows)
        return np.asarray(1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1])), dtype=np.float32)

    return score
