"""The scenarios of training and of the report, split by leak, seed and demand, never by window.

A leak scenario is eight quiet days that fill the window, a leak on the ninth or tenth day, and three
days to be found in. A quiet scenario is five weeks of no leak at all, on which false alarms are
counted. The junctions that leak in the report never leak in training, and no seed is in both.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from use_cases.water_network.network import STEPS_A_DAY, Leak, Scenario
from use_cases.water_network.sensors import Frame, simulate
from use_cases.water_network.sites import GATEWAYS

HISTORY_DAYS: Final = 8
"""Days that a window looks back; the first answer comes after them."""
SEARCH_DAYS: Final = 3
"""Days after its start in which a leak counts as found; later it has become the history."""
_LEAK_DAYS: Final = HISTORY_DAYS + 3 + SEARCH_DAYS
_QUIET_DAYS: Final = 35


class Split(StrEnum):
    """Which scenarios; the value says where their seeds begin."""

    TRAINING = "training"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Leaks of a size, in L/s at 40 m."""

    name: str
    low_ls: float
    high_ls: float


SIZE_CLASSES: Final = (
    SizeClass("small", 2.0, 4.0),
    SizeClass("medium", 4.0, 8.0),
    SizeClass("large", 8.0, 16.0),
    SizeClass("burst", 16.0, 32.0),
)

_FIRST_SEED: Final = {Split.TRAINING: 100_000, Split.HELD_OUT: 700_000}
_ROUNDS: Final = {Split.TRAINING: 4, Split.HELD_OUT: 2}
"""Leaks of every size class at every junction."""
_QUIET: Final = {Split.TRAINING: 27, Split.HELD_OUT: 10}
_SHORT_QUIET: Final = 240
_SHORT_DAYS: Final = HISTORY_DAYS + SEARCH_DAYS


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario, and the gateway (place in ``GATEWAYS``) that should find its leak."""

    scenario: Scenario
    guard: int | None = None
    size: SizeClass | None = None

    def guarded(self) -> tuple[int, Leak]:
        """Guard and leak of a leak case."""
        if self.guard is None or self.scenario.leak is None:
            raise ValueError("a quiet case has neither guard nor leak")
        return self.guard, self.scenario.leak


def leak_cases(split: Split) -> Iterator[Case]:
    """One scenario a leak: every junction of the split, every size class, at random hours."""
    seed = _FIRST_SEED[split]
    for guard, gateway in enumerate(GATEWAYS):
        nodes = gateway.training if split is Split.TRAINING else gateway.held_out
        for node in nodes:
            for size in SIZE_CLASSES * _ROUNDS[split]:
                seed += 1
                rng = np.random.default_rng([seed, 2])
                start = int(rng.integers(HISTORY_DAYS * STEPS_A_DAY + 16, (HISTORY_DAYS + 3) * STEPS_A_DAY))
                flow = float(np.exp(rng.uniform(np.log(size.low_ls), np.log(size.high_ls))))
                yield Case(Scenario(seed, _LEAK_DAYS, Leak(node, flow, start)), guard, size)


def quiet_cases(split: Split) -> Iterator[Case]:
    """Scenarios without a leak."""
    first = _FIRST_SEED[split] + 50_000
    for seed in range(first, first + _QUIET[split]):
        yield Case(Scenario(seed, _QUIET_DAYS))


def short_quiet_cases() -> list[Case]:
    """Short scenarios of training without a leak: to all gateways at once, a long one shows few demands."""
    first = _FIRST_SEED[Split.TRAINING] + 500_000
    return [Case(Scenario(seed, _SHORT_DAYS)) for seed in range(first, first + _SHORT_QUIET)]


def tuning_cases() -> list[Case]:
    """Every third quiet case of training: thresholds are placed on them, and nothing is fitted to them."""
    return list(quiet_cases(Split.TRAINING))[::3]


def frames(cases: Iterable[Case]) -> Iterator[Frame]:
    """The readings of each case, simulated on two processes."""
    with ProcessPoolExecutor(2) as pool:
        yield from pool.map(simulate, [case.scenario for case in cases], chunksize=4)
