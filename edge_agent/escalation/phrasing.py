"""Puts a model's window and its local answer into a question for the center."""

import secrets
from collections.abc import Sequence
from typing import Final, Protocol

from fleet_protocol.manifest import Manifest
from fleet_protocol.messages import LAST_WALL_MS, MAX_PAYLOAD, Request, Series, TimeBase

_MS_PER_S: Final = 1000.0
_FLOAT32_BYTES: Final = 4

_SERIES_ROOM: Final = MAX_PAYLOAD - 16 * 1024
"""Bytes of numbers in one request; the rest holds 64 names and what else it says."""


class Answer(Protocol):
    """What a model said to one window."""

    @property
    def label(self) -> str:
        """The likeliest label."""

    @property
    def score(self) -> float:
        """How likely the alarm is."""

    @property
    def confidence(self) -> float:
        """The probability of the label."""


class Due(Protocol):
    """The windows that the answer is about."""

    @property
    def windows(self) -> Sequence[memoryview]:
        """One a feature, float32, oldest first; valid for now."""

    @property
    def end_ms(self) -> float:
        """When the last step of them ended, on the monotonic clock."""


class Phrasing:
    """Writes the questions of one model. Of a window too long for one message the newest steps are told."""

    def __init__(self, manifest: Manifest, time_factor: float = 1.0) -> None:
        """The model's steps pass ``time_factor`` times as fast as its manifest says."""
        self.model: Final = manifest.name
        self._version: Final = manifest.version
        self._step_ms: Final = manifest.step_s * _MS_PER_S / time_factor
        self._series: Final = _longest(manifest)
        self._steps: Final = _SERIES_ROOM // (_FLOAT32_BYTES * len(self._series))

    def request(self, answer: Answer, due: Due, now: TimeBase, deadline_ms: int) -> Request:
        """The question about ``answer`` to the windows of ``due``, under a new id."""
        return Request(
            id=secrets.token_hex(16),
            model=self.model,
            version=self._version,
            label=answer.label,
            score=answer.score,
            confidence=answer.confidence,
            wall_ms=min(max(now.wall_ms + round(due.end_ms) - now.mono_ms, 0), LAST_WALL_MS),
            clock=now.clock,
            step_ms=self._step_ms,
            deadline_ms=deadline_ms,
            series=[
                Series(metric, due.windows[place][-self._steps :].tobytes())
                for metric, place in self._series.items()
            ],
        )


def _longest(manifest: Manifest) -> dict[str, int]:
    """For each metric the place of the feature that looks back furthest on it."""
    places: dict[str, int] = {}
    for place, feature in enumerate(manifest.features):
        before = places.get(feature.metric)
        if before is None or manifest.features[before].window < feature.window:
            places[feature.metric] = place
    return places
