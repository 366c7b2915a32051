"""Notices a meter that is stuck: it answers, and always the same. Pure.

A measured quantity that is exactly equal, to the last bit, for long enough is no measurement any
more. Its values go on being reported, as suspect, and no model looks at them.
"""

from dataclasses import replace
from typing import Final

from edge_agent.sensors.base import Sample
from fleet_protocol.messages import MetricKind, Quality


class StuckWatch:
    """Remembers since when each gauge has had its value. States and counters may rest."""

    def __init__(self, after_s: float) -> None:
        """Call a gauge stuck once it has not changed for ``after_s`` seconds."""
        self._after_ms: Final = after_s * 1000
        self._since: dict[str, tuple[float, int]] = {}

    def judge(self, samples: list[Sample]) -> tuple[list[Sample], list[str]]:
        """``samples`` with the stuck ones suspect, and the names of those."""
        stuck = [sample.metric.name for sample in samples if self._is_stuck(sample)]
        if not stuck:
            return samples, stuck
        judged = [
            replace(sample, quality=Quality.SUSPECT) if sample.metric.name in stuck else sample
            for sample in samples
        ]
        return judged, stuck

    def _is_stuck(self, sample: Sample) -> bool:
        name, value = sample.metric.name, sample.value
        if value is None or sample.metric.kind is not MetricKind.GAUGE:
            return False
        before, since_ms = self._since.setdefault(name, (value, sample.mono_ms))
        if value != before:
            self._since[name] = (value, sample.mono_ms)
            return False
        return sample.mono_ms - since_ms >= self._after_ms
