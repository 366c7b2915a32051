"""A model in shadow: it sees what the acting one sees, and what it says is compared and reported.

Nothing follows from its answers, and it is never waited for: it is asked elsewhere, and where it has
not answered before the next windows are due, it misses those.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from edge_agent.inference.session import Answer, Session
from edge_agent.pipeline.comparison import Comparison
from edge_agent.pipeline.memory import ModelMemory
from edge_agent.pipeline.vitals import Pulse
from edge_agent.pipeline.windows import Due, Windows
from edge_agent.sensors.base import Sample
from fleet_protocol.messages import Inference, ShadowReport

Told = Callable[[Answer | None], None]
"""Takes the answer; None where there is none."""

Ask = Callable[[Sequence[memoryview], Told], bool]
"""Asks a session about windows without waiting for it; False where it is too busy to be asked."""

Note = Callable[[Inference, int], None]
"""Takes an answer to report, as of monotonic ms."""


class Shadow:
    """One model in shadow: its windows, its pulse, and the comparison with what acts."""

    def __init__(self, session: Session, time_factor: float, ask: Ask, note: Note) -> None:
        manifest = session.manifest
        self._session: Final = session
        self._ask: Final = ask
        self._note: Final = note
        self._missed = 0
        self.windows: Final = Windows(manifest.features, manifest.step_s, time_factor)
        self.comparison: Final = Comparison()
        self.pulse: Final = Pulse()

    @property
    def name(self) -> str:
        """The model's name, which the acting one has too."""
        return self._session.manifest.name

    def process(self, samples: Sequence[Sample], mono_ms: int) -> None:
        """Take ``samples``, read up to ``mono_ms``, and ask about the windows that fall due."""
        for due in self.windows.take(samples, mono_ms):
            self._inquire(due, mono_ms)

    def _inquire(self, due: Due, mono_ms: int) -> None:
        def told(answer: Answer | None) -> None:
            self._take(due.bucket, answer, mono_ms)

        # Copied: the next bucket overwrites them, and the shadow may still be at it then.
        if not self._ask([memoryview(array("f", window.tobytes())) for window in due.windows], told):
            self._missed += 1
            self.pulse.failed()

    def _take(self, bucket: int, answer: Answer | None, mono_ms: int) -> None:
        if answer is None or not math.isfinite(answer.score):
            self.pulse.failed()
            return
        manifest = self._session.manifest
        self.pulse.answered(
            answer.score, answer.latency_us, alarm=answer.label == manifest.output.alarm_label
        )
        self.comparison.answered(bucket, answer)
        self._note(
            Inference(
                0,
                manifest.name,
                manifest.version,
                answer.label,
                answer.score,
                answer.confidence,
                answer.latency_us,
                shadow=True,
            ),
            mono_ms,
        )

    def memory(self) -> ModelMemory:
        """What it remembers."""
        return ModelMemory(
            self._session.digest,
            "",
            self.windows.memory(),
            -1,
            [],
            self.name,
            self.windows.layout,
            self.pulse.read(),
            self.comparison.read(),
        )

    def restore(self, memory: ModelMemory | None) -> bool:
        """Go on from ``memory`` where it is this model's; whether its windows are filled by it.

        Raises:
            ValueError: it is not of its own layout.
        """
        if memory is None or memory.digest != self._session.digest or memory.compared is None:
            return False
        self.pulse.restore(memory.vitals)
        self.comparison.restore(memory.compared)
        if memory.windows is None or memory.layout is None:
            return False
        return self.windows.restore_other(memory.windows, memory.layout, 0)

    def report(self) -> ShadowReport:
        """How it compares so far."""
        manifest, compared, vitals = self._session.manifest, self.comparison.read(), self.pulse.read()
        acting_us, shadow_us = compared.medians_us
        return ShadowReport(
            model=manifest.name,
            version=manifest.version,
            release=manifest.release,
            digest=self._session.digest,
            against=compared.version,
            windows=compared.windows,
            agreement=compared.agreement,
            mean_difference=compared.mean,
            max_difference=compared.largest,
            disagreements=list(compared.pairs),
            latency_us=shadow_us,
            acting_latency_us=acting_us,
            failures=vitals.failures,
            missed=self._missed,
        )
