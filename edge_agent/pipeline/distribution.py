"""Whether a version's scores lie elsewhere than those of the version before. Pure.

Scores are counted in ten bins from 0 to 1; what is beyond is in the outer ones (from 1 on a
reconstruction is an alarm). The measure is the earth mover's distance, also called Wasserstein's: by
how much the mean window's score would have to be moved to make one histogram of the other. It is 0
for equal ones and at most 0.9.

Population stability and Kolmogorov-Smirnov, the usual measures, say only that scores differ, and
those of a retrained model do so nearly always: see docs/shadow.md for the figures.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

BINS: Final = 10

MOVED: Final = 0.7
"""The distance from which on a version speaks of another world. On the leak models a version against itself
never came there in 4260 probations, a retrained one in 1 % of them, one with a wrong manifest in 68 %."""

LEAST: Final = 64
"""Windows of each version, less say nothing of a distribution."""


def bin_of(score: float) -> int:
    """The bin of a finite score."""
    return min(max(int(score * BINS), 0), BINS - 1)


def histogram(scores: Iterable[float]) -> tuple[int, ...]:
    """How many of the finite ``scores`` are in each bin."""
    counts = [0] * BINS
    for score in scores:
        counts[bin_of(score)] += 1
    return tuple(counts)


def distance(first: Sequence[int], second: Sequence[int]) -> float:
    """The earth mover's distance of two histograms, in units of score; each counts something."""
    shares = zip(accumulate(first), accumulate(second), strict=True)
    return sum(abs(one / sum(first) - other / sum(second)) for one, other in shares) / BINS


def has_moved(now: Sequence[int], before: Sequence[int]) -> float | None:
    """The distance, where both are known well enough and it is too large; else nothing."""
    if min(sum(now), sum(before)) < LEAST:
        return None
    moved = distance(now, before)
    return moved if moved > MOVED else None
