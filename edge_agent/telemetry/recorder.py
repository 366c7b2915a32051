"""The way of a sample inside the agent: through the pipeline, into the batcher, into the store."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from edge_agent.clock import Clock
from edge_agent.sensors.base import Sample
from edge_agent.service.health import HealthBoard
from edge_agent.service.recent import Recent
from edge_agent.telemetry.batcher import Batcher
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import Event, Inference, Severity
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)


class Processed(Protocol):
    """What the pipeline makes of samples."""

    @property
    def inferences(self) -> Sequence[Inference]:
        """Answers of models."""

    @property
    def events(self) -> Sequence[Event]:
        """What the policies raised."""


class Pipeline(Protocol):
    """Samples in, answers and events out."""

    def process(self, samples: list[Sample], mono_ms: int) -> Processed:
        """Work on ``samples``, taken up to ``mono_ms``; raises nothing that it foresees."""


class Recorder:
    """Takes samples and commits what comes of them every ``flush_interval_s``; events at once."""

    pipeline: Pipeline | None = None
    """None until the models are open; readings do not wait for them."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        health: HealthBoard,
        flush_interval_s: float,
    ) -> None:
        self._clock = clock
        self._store = store
        self._health = health
        self._flush_interval_s = flush_interval_s
        self._batcher = Batcher(clock)
        self.recent: Final = Recent()
        self._one_at_a_time = asyncio.Lock()

    async def take(self, samples: list[Sample]) -> None:
        """Record ``samples``; returns late while the disk is slow, which slows the sensors down."""
        mono_ms = self._clock.mono_ms()
        self._batcher.add_samples(samples)
        self.recent.see(samples)
        urgent = False
        if self.pipeline is not None:
            processed = self.pipeline.process(samples, mono_ms)
            self._batcher.add_inferences(processed.inferences, mono_ms)
            self._batcher.add_events(processed.events, mono_ms)
            self.recent.conclude(processed.inferences, processed.events, mono_ms)
            urgent = bool(processed.events)
        if urgent or self._batcher.full:
            await self.flush()

    def note(self, inference: Inference, mono_ms: int) -> None:
        """Record an answer that came otherwise than from the pipeline, as of ``mono_ms``."""
        self._batcher.add_inferences([inference], mono_ms)
        self.recent.conclude([inference], [], mono_ms)

    async def run(self) -> None:
        """Commit at every interval, and look after the clock."""
        while True:
            await asyncio.sleep(self._flush_interval_s)
            self._watch_clock()
            await self.flush()

    async def tell(self, event: Event) -> None:
        """Record an event of the agent itself, at once."""
        self._add(event)
        await self.flush()

    def _add(self, event: Event) -> None:
        mono_ms = self._clock.mono_ms()
        self._batcher.add_events([event], mono_ms)
        self.recent.conclude([], [event], mono_ms)

    async def flush(self) -> None:
        """Commit everything that was taken so far."""
        async with self._one_at_a_time:
            drafts = self._batcher.cut()
            if drafts:
                await self._store.append(drafts)

    def _watch_clock(self) -> None:
        if doubt := self._clock.doubt():
            self._health.raise_code("clock.untrusted", doubt)
        else:
            self._health.clear("clock.untrusted")
        jump_ms = self._clock.jump_ms()
        if jump_ms:
            text = _("The wall clock was set by {seconds:.1f} s").format(seconds=jump_ms / 1000)
            _LOG.warning(text)
            event = Event(0, "clock_jump", Severity.INFO, text, "agent", {"jump_ms": float(jump_ms)})
            self._add(event)
