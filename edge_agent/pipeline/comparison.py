"""What a model in shadow says beside the one that acts, window by window. Pure.

Only windows that both have answered are compared; they are the same windows, because both close their
buckets on the same grid. A model with another step has a grid of its own: nothing is compared then,
and that is told by a count of 0.
"""

import math
import statistics
from collections import deque
from typing import Annotated, Final

import msgspec

from edge_agent.inference.session import Answer
from fleet_protocol.messages import Count, Disagreement, Line

WAITING: Final = 64
"""Windows for which one of the two answers is still out; a shadow that far behind has lost its turn."""

MAX_PAIRS: Final = 16
"""Pairs of different labels that are told apart; the rest is only in the agreement."""

_RECENT: Final = 64
"""Latencies of which the medians are taken."""

_Latencies = Annotated[tuple[int, ...], msgspec.Meta(max_length=_RECENT)]


class Compared(msgspec.Struct, array_like=True, frozen=True):
    """The windows compared so far, against the model of the manifest ``against``.

    ``agreed`` had the same label; ``difference`` is the sum of the scores' absolute differences,
    ``largest`` the largest one; ``pairs`` counts the windows with different labels.
    """

    against: str = ""
    version: Line = ""
    windows: Count = 0
    agreed: Count = 0
    difference: float = 0.0
    largest: float = 0.0
    pairs: tuple[Disagreement, ...] = ()
    acting_us: _Latencies = ()
    shadow_us: _Latencies = ()

    @property
    def agreement(self) -> float:
        """The share of windows with the same label; 1 where there are none."""
        return self.agreed / self.windows if self.windows else 1.0

    @property
    def mean(self) -> float:
        """The mean absolute difference of the scores."""
        return self.difference / self.windows if self.windows else 0.0

    @property
    def medians_us(self) -> tuple[int, int]:
        """Median latency of the acting model and of the shadow, in microseconds; 0 where unknown."""
        acting, shadow = (statistics.median(each or (0,)) for each in (self.acting_us, self.shadow_us))
        return int(acting), int(shadow)


class Comparison:
    """Brings the two answers of every window together, in whichever order they come."""

    def __init__(self) -> None:
        self._compared = Compared()
        self._pairs: dict[tuple[str, str], int] = {}
        self._acting: dict[int, Answer] = {}
        self._shadow: dict[int, Answer] = {}
        self._acting_us: deque[int] = deque(maxlen=_RECENT)
        self._shadow_us: deque[int] = deque(maxlen=_RECENT)

    def against(self, digest: str, version: str) -> None:
        """From now on the model of this manifest acts; what was compared with another one is over."""
        if self._compared.against != digest:
            self.restore(Compared(digest, version))

    def acted(self, bucket: int, answer: Answer) -> None:
        """The acting model has answered for ``bucket``."""
        _keep(self._acting, bucket, answer)
        self._meet(bucket)

    def answered(self, bucket: int, answer: Answer) -> None:
        """The shadow has answered for ``bucket``."""
        _keep(self._shadow, bucket, answer)
        self._meet(bucket)

    def read(self) -> Compared:
        """What was compared so far."""
        return msgspec.structs.replace(
            self._compared,
            pairs=tuple(Disagreement(*labels, count) for labels, count in self._pairs.items()),
            acting_us=tuple(self._acting_us),
            shadow_us=tuple(self._shadow_us),
        )

    def restore(self, compared: Compared) -> None:
        """Go on from ``compared``."""
        self._compared = compared
        self._pairs = {(each.acting, each.shadow): each.windows for each in compared.pairs}
        self._acting.clear()
        self._shadow.clear()
        for latencies, known in (
            (self._acting_us, compared.acting_us),
            (self._shadow_us, compared.shadow_us),
        ):
            latencies.clear()
            latencies.extend(known)

    def _meet(self, bucket: int) -> None:
        if bucket not in self._acting or bucket not in self._shadow:
            return
        acting, shadow = self._acting.pop(bucket), self._shadow.pop(bucket)
        difference = abs(acting.score - shadow.score)
        if not math.isfinite(difference):
            return
        before = self._compared
        self._compared = msgspec.structs.replace(
            before,
            windows=before.windows + 1,
            agreed=before.agreed + (acting.label == shadow.label),
            difference=before.difference + difference,
            largest=max(before.largest, difference),
        )
        self._acting_us.append(acting.latency_us)
        self._shadow_us.append(shadow.latency_us)
        pair = (acting.label, shadow.label)
        if acting.label != shadow.label and (pair in self._pairs or len(self._pairs) < MAX_PAIRS):
            self._pairs[pair] = self._pairs.get(pair, 0) + 1


def _keep(answers: dict[int, Answer], bucket: int, answer: Answer) -> None:
    answers[bucket] = answer
    while len(answers) > WAITING:
        del answers[min(answers)]
