"""What is compared in the report: detectors that score every step of a gateway's readings."""

from typing import Final

from use_cases.water_network.alarms import AlarmRule
from use_cases.water_network.network import STEPS_A_DAY

STEPS_A_WEEK: Final = 7 * STEPS_A_DAY
TARGET_PER_WEEK: Final = 1.0
"""False alarms a gateway-week that every detector is tuned to."""
ALARM: Final = AlarmRule(for_windows=8, cooldown=STEPS_A_DAY // 4)
"""Two hours in a row; the same numbers as in ``policies/leak.toml``."""
