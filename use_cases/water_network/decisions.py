"""Scenario-days on which one gateway is asked once: what escalation is calibrated and judged on.

Every scenario is drawn alike and by itself: three quarters have a leak at a junction that training
never saw leak, the rest none. On each of its last three days one gateway is asked at a random moment
whether a leak is open in its district: in a scenario with a leak its guard half of the time, any
other one the other half. Windows of one day overlap and are one decision, so a day gives just one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from use_cases.water_network.network import STEPS_A_DAY, Leak, Scenario
from use_cases.water_network.scenarios import HISTORY_DAYS, SIZE_CLASSES, Case
from use_cases.water_network.sites import GATEWAYS

DECISION_DAYS: Final = 3
"""Days of a scenario on which a gateway is asked."""
_DAYS: Final = HISTORY_DAYS + DECISION_DAYS
_OPENING_DAYS: Final = 2
"""A leak opens on the first or second of the days of decision."""
_LEAK_SHARE: Final = 0.75
_GUARD_SHARE: Final = 0.5
"""How often the guard is asked where there is a leak; else a gateway in whose district there is none."""


class Purpose(StrEnum):
    """What scenarios are for; no seed serves both."""

    CALIBRATION = "calibration"
    """Temperature and threshold; ``fleet calibrate`` splits them again, by scenario."""
    REPORT = "report"
    """The table; nothing was ever chosen on them."""


_FIRST_SEED: Final = {Purpose.CALIBRATION: 820_560, Purpose.REPORT: 950_000}
_COUNT: Final = {Purpose.CALIBRATION: 1140, Purpose.REPORT: 440}


@dataclass(frozen=True, slots=True)
class Question:
    """One decision: the gateway (place in ``GATEWAYS``) that is asked, and the step of its newest reading."""

    place: int
    step: int
    day: int
    """Day of the scenario, from 0 on."""


def decision_cases(purpose: Purpose) -> list[Case]:
    """The scenarios, each from a seed of its own: junction, size and hour are drawn anew for each."""
    first = _FIRST_SEED[purpose]
    return [_case(seed) for seed in range(first, first + _COUNT[purpose])]


def questions(case: Case) -> Iterator[Question]:
    """Whom ``case`` is asked, one gateway a day."""
    rng = np.random.default_rng([case.scenario.seed, 4])
    for day in range(HISTORY_DAYS, _DAYS):
        yield Question(_asked(rng, case.guard), day * STEPS_A_DAY + int(rng.integers(STEPS_A_DAY)), day)


def open_zone(case: Case, step: int) -> int | None:
    """Place of the guard in whose district a leak is open at ``step``; none where there is none."""
    leak = case.scenario.leak
    return case.guard if leak is not None and step >= leak.start_step else None


def _case(seed: int) -> Case:
    rng = np.random.default_rng([seed, 3])
    if rng.random() >= _LEAK_SHARE:
        return Case(Scenario(seed, _DAYS))
    guard = int(rng.choice([place for place, gateway in enumerate(GATEWAYS) if gateway.held_out]))
    node = str(rng.choice(GATEWAYS[guard].held_out))
    size = SIZE_CLASSES[int(rng.integers(len(SIZE_CLASSES)))]
    flow = float(np.exp(rng.uniform(np.log(size.low_ls), np.log(size.high_ls))))
    start = (HISTORY_DAYS * STEPS_A_DAY) + int(rng.integers(_OPENING_DAYS * STEPS_A_DAY))
    return Case(Scenario(seed, _DAYS, Leak(node, flow, start)), guard, size)


def _asked(rng: np.random.Generator, guard: int | None) -> int:
    if guard is not None and rng.random() < _GUARD_SHARE:
        return guard
    return int(rng.choice([place for place in range(len(GATEWAYS)) if place != guard]))
