"""The agent's alarm logic over a whole series of scores, and the threshold that keeps it quiet enough.

An alarm is raised when the score has been above its threshold for ``for_windows`` windows in a row,
and not again within the cooldown: what a policy rule says, for detectors of every kind.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Scores = NDArray[np.float32]

_HALVINGS: Final = 40
"""Enough to place a threshold to the last bit of a float32 score."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When an alarm is raised."""

    for_windows: int
    cooldown: int
    """Steps in which it is not raised again."""


def persistent(scores: Scores, rule: AlarmRule) -> Scores:
    """The score that a threshold has to stay below: the least of the last ``for_windows`` at each step.

    The first ``for_windows - 1`` steps have none and are left out.
    """
    return np.asarray(sliding_window_view(scores, rule.for_windows).min(axis=-1))


def count_alarms(held: NDArray[np.bool_], rule: AlarmRule) -> int:
    """How often an alarm is raised where the rule ``held`` at each step."""
    count, free = 0, 0
    for step in np.flatnonzero(held).tolist():
        if step >= free:
            count, free = count + 1, step + rule.cooldown
    return count


def alarms_per_week(series: Sequence[Scores], threshold: float, rule: AlarmRule, steps_a_week: int) -> float:
    """Alarms a week and gateway, where each of ``series`` is one gateway's scores."""
    weeks = sum(len(scores) for scores in series) / steps_a_week
    return sum(count_alarms(persistent(scores, rule) > threshold, rule) for scores in series) / weeks


def tune_threshold(series: Sequence[Scores], rule: AlarmRule, steps_a_week: int, per_week: float) -> float:
    """The least threshold at which there are no more than ``per_week`` alarms a gateway-week."""
    least = [persistent(scores, rule) for scores in series]
    weeks = sum(len(scores) for scores in series) / steps_a_week
    low, high = min(float(each.min()) for each in least), max(float(each.max()) for each in least)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(count_alarms(each > middle, rule) for each in least) > per_week * weeks:
            low = middle
        else:
            high = middle
    return high


def first_alarm(scores: Scores, threshold: float, rule: AlarmRule) -> float:
    """Steps from the first score to the first alarm; infinite if there is none."""
    held = np.flatnonzero(persistent(scores, rule) > threshold)
    return float(held[0] + rule.for_windows - 1) if len(held) else math.inf
