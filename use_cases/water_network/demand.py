"""Stochastic water demand: who takes how much at every step, and when the Lake pump runs.

A household node follows a residential day (quiet night, two peaks; later and flatter at the
weekend) times what is random: the whole town's day, each node's day, each node's quarter of an
hour, and now and then a large honest withdrawal (a hydrant, a pool, a street washer) that is no
leak but looks like one for some hours. The four bulk customers of Net3 run near constant; one of
them only in the daytime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_STEPS_A_DAY: Final = 96
_BULK: Final = ("15", "35", "123", "203")
_DAYTIME_BULK: Final = "123"

_TOWN_DAY_SPREAD: Final = 0.03
_NODE_DAY_SPREAD: Final = 0.05
_STEP_SPREAD: Final = 0.12
"""Relative spread of a quarter of an hour at a node that takes 1 L/s; falls with the root of the demand."""
_BULK_SPREAD: Final = 0.015
_WITHDRAWALS_A_WEEK: Final = 6.0
"""Large honest withdrawals in the whole network."""

_HOURS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24)
_WEEKDAY: Final = (
    0.55, 0.42, 0.36, 0.34, 0.38, 0.62, 1.15, 1.60, 1.55, 1.30, 1.10,
    1.12, 1.00, 1.15, 1.35, 1.50, 1.45, 1.25, 1.00, 0.75, 0.55,
)  # fmt: skip
_WEEKEND: Final = (
    0.65, 0.50, 0.41, 0.36, 0.36, 0.42, 0.62, 0.95, 1.35, 1.65, 1.55,
    1.35, 1.15, 1.15, 1.30, 1.42, 1.40, 1.25, 1.05, 0.85, 0.65,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand in L/s, (steps, nodes), with whether the Lake pump runs at each step (0 or 1)."""

    nodes: tuple[str, ...]
    values: NDArray[np.float64]
    pump: NDArray[np.int64]


def draw_demand(seed: int, days: int, base: Mapping[str, float]) -> Demand:
    """The demand of ``days`` days for nodes with mean demand ``base`` (L/s), from any day of the week on."""
    rng = np.random.default_rng(seed)
    nodes = tuple(base)
    mean = np.array([base[name] for name in nodes])
    values = mean * _curves(nodes, days, int(rng.integers(7))) * _day_factors(rng, days, len(nodes))
    values *= _step_factors(rng, nodes, mean, days)
    _add_withdrawals(
        rng, values, [index for index, name in enumerate(nodes) if base[name] > 0 and name not in _BULK]
    )
    return Demand(nodes, np.maximum(values, 0.0), _pump_plan(rng, days))


def _curves(nodes: tuple[str, ...], days: int, first_weekday: int) -> NDArray[np.float64]:
    """The expected course for each node: (steps, nodes), mean near 1."""
    hours = np.arange(_STEPS_A_DAY) / (_STEPS_A_DAY / 24)
    weekday, weekend = np.interp(hours, _HOURS, _WEEKDAY), np.interp(hours, _HOURS, _WEEKEND)
    town = np.concatenate([weekend if (first_weekday + day) % 7 >= 5 else weekday for day in range(days)])
    shift = np.tile(np.where((hours >= 8) & (hours < 23), 1.5, 0.1), days)
    columns = {name: np.ones_like(town) for name in _BULK} | {_DAYTIME_BULK: shift}
    return np.stack([columns.get(name, town) for name in nodes], axis=1)


def _day_factors(rng: np.random.Generator, days: int, nodes: int) -> NDArray[np.float64]:
    """Town's and node's day, joined by straight lines from noon to noon: (steps, nodes)."""
    town = np.exp(_TOWN_DAY_SPREAD * _correlated(rng, (days + 1, 1), 0.6))
    node = np.exp(_NODE_DAY_SPREAD * _correlated(rng, (days + 1, nodes), 0.5))
    anchors = town * node
    place = (np.arange(days * _STEPS_A_DAY) / _STEPS_A_DAY)[:, None]
    low = place.astype(int)[:, 0]
    weight = place - place.astype(int)
    return np.asarray(anchors[low] * (1 - weight) + anchors[low + 1] * weight)


def _step_factors(
    rng: np.random.Generator, nodes: tuple[str, ...], mean: NDArray[np.float64], days: int
) -> NDArray[np.float64]:
    spread = np.clip(_STEP_SPREAD / np.sqrt(np.maximum(mean, 0.05)), 0.04, 0.3)
    spread[[index for index, name in enumerate(nodes) if name in _BULK]] = _BULK_SPREAD
    return np.exp(spread * _correlated(rng, (days * _STEPS_A_DAY, len(nodes)), 0.5))


def _correlated(rng: np.random.Generator, shape: tuple[int, int], memory: float) -> NDArray[np.float64]:
    """Standard normal columns in which each value remembers ``memory`` of the one before."""
    noise = rng.standard_normal(shape)
    for index in range(1, shape[0]):
        noise[index] = memory * noise[index - 1] + (1 - memory**2) ** 0.5 * noise[index]
    return noise


def _add_withdrawals(rng: np.random.Generator, values: NDArray[np.float64], eligible: list[int]) -> None:
    steps = len(values)
    for _ in range(rng.poisson(_WITHDRAWALS_A_WEEK * steps / (7 * _STEPS_A_DAY))):
        start = int(rng.integers(steps))
        length = int(rng.integers(2, 17))
        values[start : start + length, int(rng.choice(eligible))] += rng.uniform(2.0, 12.0)


def _pump_plan(rng: np.random.Generator, days: int) -> NDArray[np.int64]:
    """Switched on about 01:00 and off about 15:00, by hand: some quarters of an hour early or late."""
    plan = np.zeros(days * _STEPS_A_DAY, dtype=np.int64)
    for day in range(days):
        start, stop = 4 + int(rng.integers(-2, 3)), 60 + int(rng.integers(-3, 4))
        plan[day * _STEPS_A_DAY + start : day * _STEPS_A_DAY + stop] = 1
    return plan
