"""The pack's policies at the speed of the demonstration."""

import re
from pathlib import Path
from typing import Final

from use_cases.water_network.demo import plan

PACK: Final = Path(__file__).parent.parent

_BUDGET: Final = re.compile(r"^budget = .*$", re.MULTILINE)
"""The line of a policy that says how often the center may be asked, by the clock on the wall."""


def in_fast_time(policy: str) -> str:
    """``policy`` with a budget of questions that fits the speed of the demonstration."""
    budget = f"{{ per_hour = {plan.QUESTIONS_PER_HOUR}, burst = {plan.QUESTIONS_AT_ONCE} }}"
    return _BUDGET.sub(f"budget = {budget}", policy)
