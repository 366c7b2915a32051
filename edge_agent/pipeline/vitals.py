"""How a model and its policy do while they run: what is counted, and by whom it is counted."""

import math
from collections import deque
from typing import Annotated, Final

import msgspec

from edge_agent.pipeline.distribution import BINS, bin_of
from fleet_protocol.messages import Count

RECENT: Final = 64
"""Windows that say what is usual at present: a version that ran for a month of calm may have an open
leak before it today, and the next one shall not be blamed for seeing that too."""

MAX_LATENCIES: Final = 64
"""The last ones, of which the median is taken."""


class Vitals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one version has done so far.

    ``answers`` and ``failures`` are windows with and without an answer; ``alarms`` the answers with
    the alarm's label; ``latencies_us`` the last ones. ``raised`` are windows in which the policy
    raised an event, ``unclear`` those in which one of its rules could not be evaluated. ``scores``
    counts the answers by their score, see :mod:`.distribution`.
    """

    answers: Count = 0
    failures: Count = 0
    alarms: Count = 0
    raised: Count = 0
    unclear: Count = 0
    latencies_us: Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_LATENCIES)] = ()
    scores: Annotated[tuple[Count, ...], msgspec.Meta(max_length=BINS)] = ()


class Pulse:
    """Counts the vitals of one version while it runs; cheap enough for every window."""

    def __init__(self) -> None:
        self._counts: Final = dict.fromkeys(("answers", "failures", "alarms", "raised", "unclear"), 0)
        self._latencies_us: Final[deque[int]] = deque(maxlen=MAX_LATENCIES)
        self._scores: Final = [0] * BINS
        self._recent: Final[deque[tuple[bool, bool, int]]] = deque(maxlen=RECENT)
        """Of each answered window: was it an alarm, did it raise an event, and the bin of its score."""

    def answered(self, score: float, latency_us: int, *, alarm: bool) -> None:
        """A window got an answer; one whose score is no number is none."""
        if not math.isfinite(score):
            self.failed()
            return
        self._counts["answers"] += 1
        self._counts["alarms"] += alarm
        self._latencies_us.append(latency_us)
        place = bin_of(score)
        self._scores[place] += 1
        self._recent.append((alarm, False, place))

    def failed(self) -> None:
        """A window got no answer."""
        self._counts["failures"] += 1

    def judged(self, *, raised: bool, unclear: bool) -> None:
        """The policy has seen an answer."""
        self._counts["raised"] += raised
        self._counts["unclear"] += unclear
        if raised and self._recent:
            alarm, _raised, place = self._recent.pop()
            self._recent.append((alarm, True, place))

    def restore(self, vitals: Vitals) -> None:
        """Go on counting from ``vitals``."""
        self._counts.update({name: getattr(vitals, name) for name in self._counts})
        self._latencies_us.extend(vitals.latencies_us)
        for place, count in enumerate(vitals.scores):
            self._scores[place] = count

    def usual(self) -> Vitals:
        """What is usual at present; all since the beginning while the agent has seen too few windows."""
        if len(self._recent) < RECENT:
            return self.read()
        alarms, raised, places = zip(*self._recent, strict=True)
        return Vitals(
            answers=RECENT,
            alarms=sum(alarms),
            raised=sum(raised),
            latencies_us=tuple(self._latencies_us),
            scores=tuple(map(places.count, range(BINS))),
        )

    def read(self) -> Vitals:
        """All since the beginning."""
        scores = tuple(self._scores) if self._counts["answers"] else ()
        return Vitals(**self._counts, latencies_us=tuple(self._latencies_us), scores=scores)
