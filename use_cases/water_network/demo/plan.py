"""Who stands where in the demonstration: twelve agents, what each reads, and how time runs.

Eleven gateways stand in the simulated network, one listens to the real municipal record. They
differ in runtime and in whether the model runs in a process of its own.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from use_cases.water_network.network import STEP_S, STEPS_A_DAY, Leak, Scenario

TIME_FACTOR: Final = 4500.0
"""How much faster than real the demonstration runs: 15 minutes take 0.2 s, a day 19.2 s."""

WARM_UP_DAYS: Final = 9
"""Days before the leak opens; the model compares a day with the days before it."""

LENGTH_DAYS: Final = 60
"""Days until the simulated city stands still; about nineteen minutes."""

BETTER_DAY: Final = 12.0
BAD_DAY: Final = 17.0
WORSE_DAY: Final = 19.0
THIEF_DAY: Final = 22.0
MENDED_DAY: Final = 24.0
"""Days before which the story that tells itself does not go on; ``--check`` goes on as soon as it can."""

LEAK_NODE: Final = "143"
LEAK_SIZE_LS: Final = 12.0
LEAK_GUARD: Final = "gw-149"
"""The gateway in whose district the leak opens; the junction was held out of training."""


MODEL: Final = "pressure_leak"
"""The name under which every release of the leak model is published."""

BETTER: Final = 2
BAD: Final = 3
WORSE: Final = 4
MENDED: Final = 5
"""Releases of the leak model; the first one is fitted at the factory."""

POLICY: Final = "leak"
BETTER_POLICY: Final = 3
"""The policy that was calibrated for the better model."""

GROUP: Final = "quiet"
GROUP_FILTER: Final = ("id=gw-2*",)
"""Who gets updates while the leak is open: gateways away from it. On probation a model is blamed for
alarms that the one before it did not raise, and near the leak they are right."""

PROBATION_S: Final = 3.0
PROBATION_WINDOWS: Final = 12
POLL_INTERVAL_S: Final = 60.0
"""The terms of updates: a window comes every 0.2 s here."""

QUESTIONS_PER_HOUR: Final = 360.0
QUESTIONS_AT_ONCE: Final = 4
"""What one gateway may ask the center: a question every half day of plant time."""


class Source(StrEnum):
    """Where a gateway's values come from."""

    NETWORK = "network"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Post:
    """One agent of the demonstration and how it is set up."""

    device: str
    unit: int
    source: Source
    runtime: str
    isolation: str = "worker"

    @property
    def model(self) -> str:
        """Folder of the model that it runs."""
        return "pressure_leak" if self.source is Source.NETWORK else "flow_day"

    @property
    def site(self) -> str:
        """Where it stands."""
        return "net3" if self.source is Source.NETWORK else "main"

    @property
    def policy(self) -> str:
        """File of the policy that reads its answers."""
        return "leak.toml" if self.source is Source.NETWORK else "flow.toml"


POSTS: Final = (
    Post("gw-207", 1, Source.NETWORK, "litert"),
    Post("gw-149", 2, Source.NETWORK, "openvino"),
    Post("gw-213", 3, Source.NETWORK, "litert"),
    Post("gw-187", 4, Source.NETWORK, "openvino"),
    Post("gw-129", 5, Source.NETWORK, "litert", isolation="none"),
    Post("gw-164", 6, Source.NETWORK, "litert"),
    Post("gw-273", 7, Source.NETWORK, "openvino", isolation="none"),
    Post("gw-153", 8, Source.NETWORK, "litert"),
    Post("gw-259", 9, Source.NETWORK, "litert"),
    Post("gw-241", 10, Source.NETWORK, "openvino"),
    Post("gw-247", 11, Source.NETWORK, "litert"),
    Post("gw-main", 12, Source.RECORD, "litert"),
)


def scenario(seed: int) -> Scenario:
    """What happens in the simulated network."""
    leak = Leak(LEAK_NODE, LEAK_SIZE_LS, WARM_UP_DAYS * STEPS_A_DAY)
    return Scenario(seed=seed, days=LENGTH_DAYS, leak=leak)


def interval_s(post: Post) -> float:
    """Seconds between two readings of ``post`` as the clock on the wall runs."""
    step = STEP_S if post.source is Source.NETWORK else 3600
    return step / TIME_FACTOR
