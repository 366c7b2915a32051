"""Keeps the pipeline's memory in a file beside the spool.

Losing the last seconds of it costs a bucket at most, so it is written every few seconds and not
with every reading. A file that cannot be used is left out: the windows then start anew.

After a power cut, a board without a battery for its clock learns only from a time service how long
it was dark. Until then the memory waits: a model that looks back a week would otherwise be blind
for a week after every cut.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from edge_agent import durable
from edge_agent.clock import Clock
from edge_agent.pipeline.memory import MAX_BYTES, Memory, ModelMemory, decode, encode, shift_ms
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

FILE_NAME: Final = "windows.state"
SAVE_EVERY_S: Final = 5.0
"""Steps of a model are minutes; a shorter interval would only wear the card."""

PATIENCE_MS: Final = 15 * 60_000
"""For how long the memory waits for the clock: a modem finds its network within minutes, or not today."""


class Remembering(Protocol):
    """A pipeline, as far as its memory goes."""

    def memory(self) -> list[ModelMemory]:
        """What it remembers now."""

    def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
        """Take over what fits, with times moved by ``shift_ms``."""


class Keeper:
    """Reads the memory once, and saves it again and again, every ``save_every_s``."""

    def __init__(self, folder: Path, clock: Clock, save_every_s: float = SAVE_EVERY_S) -> None:
        self._file: Final = folder / FILE_NAME
        self._clock: Final = clock
        self._pipeline: Remembering | None = None
        self._save_every_s: Final = save_every_s
        self._saved: list[ModelMemory] = []
        self._waiting: Memory | None = None
        self._since_ms = 0
        self._one_at_a_time: Final = asyncio.Lock()

    def take(self, pipeline: Remembering) -> None:
        """Give ``pipeline`` back what its predecessor remembered, and keep it from now on."""
        self._pipeline, self._since_ms, self._waiting = pipeline, self._clock.mono_ms(), None
        try:
            self._waiting = decode(self._read())
            self._restore(pipeline)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._tell_unusable(error)

    async def run(self) -> None:
        """Save every few seconds what has changed."""
        while True:
            await asyncio.sleep(self._save_every_s)
            self._restore_late()
            await self.save()

    async def save(self) -> None:
        """Write the memory, if there is anything new in it; a full disk only costs the memory.

        It is taken here, where the pipeline does not move; only the disk is waited for in a thread.
        """
        models = self._pipeline.memory() if self._pipeline else []
        if models == self._saved or self._waiting is not None:
            return
        content = encode(Memory(1, self._clock.now(), models))
        try:
            async with self._one_at_a_time:
                await asyncio.to_thread(durable.write, self._file, content)
        except OSError as error:
            _LOG.warning(
                _("{file} cannot be written: {reason}").format(file=self._file, reason=error.strerror)
            )
            return
        self._saved = models

    def _restore(self, pipeline: Remembering) -> None:
        """Give back the memory that waits, or give it up, or let it wait for the clock."""
        memory, now = self._waiting, self._clock.now()
        if memory is None:
            return
        shift = shift_ms(memory.at, now)
        may_come = memory.at.clock is ClockState.TRUSTED and now.clock is ClockState.UNTRUSTED
        if shift is None and may_come and now.mono_ms - self._since_ms < PATIENCE_MS:
            return
        self._waiting = None
        if shift is not None:
            pipeline.restore(memory.models, shift)

    def _restore_late(self) -> None:
        if self._pipeline is None or self._waiting is None:
            return
        try:
            self._restore(self._pipeline)
        except ValueError as error:
            self._tell_unusable(error)

    def _tell_unusable(self, error: Exception) -> None:
        _LOG.warning(
            _("{file} cannot be used, windows start anew: {reason}").format(file=self._file, reason=error)
        )

    def _read(self) -> bytes:
        with self._file.open("rb") as file:
            return file.read(MAX_BYTES)
