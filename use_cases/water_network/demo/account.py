"""The account of every reading: what the meters served against what the database holds.

Each meter counts the readings that it served and sends the count along as a metric. So a device's
stored counts must be every number from 1 to the last one served, each exactly once. A number may be
missing only where the agent was killed between reading the meter and committing the reading to its
spool: it had acknowledged it to nobody yet.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """One device's readings from the meter to the database."""

    device: str
    served: int
    stored: int
    missing: tuple[int, ...]
    doubled: tuple[int, ...]
    kills: int

    @property
    def lost(self) -> int:
        """Readings missing that no kill explains; a kill explains one."""
        return max(0, len(self.missing) - self.kills)

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing doubled."""
        return not self.lost and not self.doubled


def account(device: str, served: int, stored: Iterable[float], kills: int) -> Account:
    """Hold the ``stored`` values of the counter against the number ``served``.

    ``kills`` is how often the agent was killed with SIGKILL.
    """
    seen = Counter(int(value) for value in stored)
    return Account(
        device=device,
        served=served,
        stored=seen.total(),
        missing=tuple(number for number in range(1, served + 1) if number not in seen),
        doubled=tuple(sorted(number for number, times in seen.items() if times > 1)),
        kills=kills,
    )
