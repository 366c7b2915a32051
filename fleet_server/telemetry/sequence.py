"""Which numbers of a flow are committed: the contiguous mark, and what came ahead of it.

Pure. Numbers start at 1 and the mark at 0. What is ahead is kept as ranges, so that a hole costs
one range, however much follows it; the number of ranges is bounded, and so is what a device that
numbers at random can make the server keep.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Final

MAX_RANGES: Final = 256
"""Ranges ahead of the mark. An agent that resends from the mark makes one or two holes at a time."""

Range = tuple[int, int]


@dataclass(slots=True)
class Flow:
    """The state of one (device, epoch, stream); ``ahead`` is sorted, disjoint and never adjacent."""

    contiguous: int = 0
    ahead: list[Range] = field(default_factory=list)

    def missing(self, first: int, last: int) -> list[Range]:
        """The parts of ``first`` to ``last`` that are not committed yet."""
        if not self.ahead and first > self.contiguous:
            return [(first, last)]
        parts: list[Range] = []
        start = max(first, self.contiguous + 1)
        for low, high in self.ahead:
            if high < start:
                continue
            if low > last:
                break
            if start < low:
                parts.append((start, low - 1))
            start = high + 1
        if start <= last:
            parts.append((start, last))
        return parts

    def has_room(self, first: int) -> bool:
        """Whether a range that starts at ``first`` can be kept."""
        return first <= self.contiguous + 1 or len(self.ahead) < MAX_RANGES

    def commit(self, first: int, last: int) -> None:
        """Count ``first`` to ``last`` as committed, and move the mark as far as nothing is missing."""
        if first <= self.contiguous + 1:
            self.contiguous = max(self.contiguous, last)
        else:
            self._keep(first, last)
        while self.ahead and self.ahead[0][0] <= self.contiguous + 1:
            self.contiguous = max(self.contiguous, self.ahead.pop(0)[1])

    def _keep(self, first: int, last: int) -> None:
        start = bisect_left(self.ahead, first - 1, key=lambda part: part[1])
        end = bisect_right(self.ahead, last + 1, key=lambda part: part[0])
        joined = self.ahead[start:end]
        low = min(first, joined[0][0]) if joined else first
        high = max(last, joined[-1][1]) if joined else last
        self.ahead[start:end] = [(low, high)]
