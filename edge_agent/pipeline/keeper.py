"""Keeps the pipeline's memory in a file beside the spool.

Losing the last seconds of it costs a bucket at most, so it is written every few seconds and not
with every reading. A file that cannot be used is left out: the windows then start anew.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from edge_agent import durable
from edge_agent.clock import Clock
from edge_agent.pipeline.memory import MAX_BYTES, Memory, ModelMemory, decode, encode, shift_ms
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

FILE_NAME: Final = "windows.state"
SAVE_EVERY_S: Final = 5.0
"""Steps of a model are minutes; a shorter interval would only wear the card."""


class Remembering(Protocol):
    """A pipeline, as far as its memory goes."""

    def memory(self) -> list[ModelMemory]:
        """What it remembers now."""

    def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
        """Take over what fits, with times moved by ``shift_ms``."""


class Keeper:
    """Reads the memory once, and saves it again and again."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._file: Final = folder / FILE_NAME
        self._clock: Final = clock
        self._pipeline: Remembering | None = None
        self._saved: list[ModelMemory] = []
        self._one_at_a_time: Final = asyncio.Lock()

    def take(self, pipeline: Remembering) -> None:
        """Give ``pipeline`` back what its predecessor remembered, and keep it from now on."""
        self._pipeline = pipeline
        try:
            memory = decode(self._read())
            shift = shift_ms(memory.at, self._clock.now())
            if shift is not None:
                pipeline.restore(memory.models, shift)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _LOG.warning(
                _("{file} cannot be used, windows start anew: {reason}").format(file=self._file, reason=error)
            )

    async def run(self) -> None:
        """Save every few seconds what has changed."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        """Write the memory, if there is anything new in it; a full disk only costs the memory.

        It is taken here, where the pipeline does not move; only the disk is waited for in a thread.
        """
        models = self._pipeline.memory() if self._pipeline else []
        if models == self._saved:
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

    def _read(self) -> bytes:
        with self._file.open("rb") as file:
            return file.read(MAX_BYTES)
