"""The account of every reading: what the meters served against what the database holds.

Each meter counts the readings that it served and sends the count along as a metric. So a device's
stored counts must be every number from 1 to the last one served, each exactly once, with as many
values of every other metric. A number may be missing only where the agent was killed between
reading the meter and committing the reading to its spool: nobody had been told yet that it is safe.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Account:
    """One device's readings from the meter to the database."""

    device: str
    served: int
    stored: int
    cut_short: tuple[int, ...]
    """Numbers missing beside a kill."""
    lost: tuple[int, ...]
    """Numbers missing that no kill explains."""
    doubled: tuple[int, ...]
    uneven: tuple[str, ...]
    """Metrics of which there are more or fewer values than of the counter."""
    kills: int

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing doubled, every metric complete."""
        return not (self.lost or self.doubled or self.uneven)


def account(
    device: str,
    served: int,
    stored: Iterable[tuple[float, int]],
    kills_ms: Sequence[int],
    others: Mapping[str, int],
) -> Account:
    """Hold the stored values of the counter, each with its time in ms, against the number ``served``.

    ``kills_ms`` are the times at which the agent was killed; each explains one missing number, if it
    lies between the readings before and after it. ``others`` is how many values of every other
    metric there are.
    """
    pairs = sorted((int(value), time_ms) for value, time_ms in stored)
    seen = Counter(number for number, _time_ms in pairs)
    cut_short, lost = _missing(served, pairs, sorted(kills_ms))
    return Account(
        device=device,
        served=served,
        stored=seen.total(),
        cut_short=cut_short,
        lost=lost,
        doubled=tuple(sorted(number for number, times in seen.items() if times > 1)),
        uneven=tuple(name for name, count in others.items() if count != seen.total()),
        kills=len(kills_ms),
    )


def _missing(
    served: int, pairs: Sequence[tuple[int, int]], kills_ms: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers that are not there: those that a kill explains, and the others."""
    explained: list[int] = []
    lost: list[int] = []
    bounded = [(0, -math.inf), *pairs, (served + 1, math.inf)]
    for (before, since_ms), (after, until_ms) in pairwise(bounded):
        absent = list(range(before + 1, after))
        kills = sum(since_ms <= kill <= until_ms for kill in kills_ms) if absent else 0
        explained += absent[:kills]
        lost += absent[kills:]
    return tuple(explained), tuple(lost)
