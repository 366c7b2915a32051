"""The spool for the event loop: in a thread of its own, and alive whatever happens to the file.

A sync of a worn card takes half a second, which the loop must not wait for. A corrupt file is set
aside and a new one begun; a full disk makes records losses, which are told as a gap when there is
room again. Nothing here ever ends the agent.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from edge_agent.clock import Clock
from edge_agent.errors import SpoolCorrupt, SpoolUnwritable
from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.batcher import Draft
from edge_agent.telemetry.spool import Loss, Position, Row, Spool
from fleet_protocol.messages import Mark, SpoolReport, Stream
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)
_Result = TypeVar("_Result")

FILE_NAME: Final = "spool.db"
_COMPANIONS: Final = ("", "-wal", "-shm")
_KEPT_ASIDE: Final = 3
"""Files set aside that are kept; a dying card must not fill itself with them."""


class Store:
    """Appends, reads and acknowledges through one thread, in the order of the calls.

    ``changed`` is set when there may be something new to send. ``generation`` changes with the
    file: positions of another generation mean nothing.
    """

    def __init__(self, folder: Path, max_bytes: int, clock: Clock, health: HealthBoard) -> None:
        self.changed: Final = asyncio.Event()
        self.generation = 0
        self.stored_at_s: float | None = None
        """When readings or answers were committed last, monotonic; none since the start."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._health = health
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._spool: Spool | None = None
        self._epoch = "0" * 16
        self._losses: dict[Stream, Loss] = {}
        self._report = SpoolReport(batches=0, bytes=0, dropped_records=0)

    @property
    def epoch(self) -> str:
        """The epoch that new batches are numbered in; zeros until the file could be opened."""
        return self._epoch

    async def open(self) -> None:
        """Open the file now rather than with the first batch."""
        await self._tolerant(lambda _spool: None)
        self._tell_set_aside()

    async def append(self, drafts: Sequence[Draft]) -> None:
        """Store ``drafts``; what cannot be stored is counted and told later."""
        losses, self._losses = self._losses, {}
        try:
            dropped = await self._call(lambda spool: spool.append(drafts, losses))
        except SpoolUnwritable as error:
            self._losses = losses
            for draft in drafts:
                self._lose(draft)
            self._health.raise_code(error.code, str(error))
            return
        self._health.clear(SpoolUnwritable.code)
        if any(draft.stream is Stream.TELEMETRY for draft in drafts):
            self.stored_at_s = time.monotonic()
        if dropped:
            self._health.raise_code("spool.dropping")
        self.changed.set()

    async def rows(self, stream: Stream, after: Position, limit: int) -> list[Row]:
        """The next batches to send; none if the file cannot be read now."""
        return await self._tolerant(lambda spool: spool.rows(stream, after, limit)) or []

    async def acknowledge(self, marks: Sequence[Mark]) -> list[Mark]:
        """Delete what the server has stored; the marks that cannot be are given back."""
        refused = await self._tolerant(lambda spool: spool.acknowledge(marks))
        if refused:
            mark = refused[0]
            self._health.raise_code(
                "ack.refused",
                _("{stream} to {seq}, which was never given out").format(stream=mark.stream, seq=mark.seq),
            )
        elif refused is not None:
            self._health.clear("ack.refused")
            self._health.clear("spool.dropping")
        return refused or []

    async def forgotten(self, mark: Mark) -> Row | None:
        """What a server that is behind ``mark`` has to be told; see :meth:`Spool.forgotten`."""
        return await self._tolerant(lambda spool: spool.forgotten(mark))

    async def report(self) -> SpoolReport:
        """What waits; the last known where the file cannot be read now."""
        self._report = await self._tolerant(Spool.report) or self._report
        return self._report

    async def close(self) -> None:
        """Finish what was begun and close the file."""
        await self._in_thread(self._close)
        self._thread.shutdown()

    async def _tolerant(self, work: Callable[[Spool], _Result]) -> _Result | None:
        try:
            return await self._call(work)
        except SpoolUnwritable as error:
            self._health.raise_code(error.code, str(error))
            return None

    async def _call(self, work: Callable[[Spool], _Result]) -> _Result:
        """Do ``work`` in the thread; where the file turns out corrupt, on a new one instead."""
        try:
            return await self._in_thread(lambda: work(self._opened()))
        except SpoolCorrupt as error:
            _LOG.error(_("the spool is corrupt and is set aside: {reason}").format(reason=error))
        await self._in_thread(self._set_aside)
        self.generation += 1
        self._tell_set_aside()
        try:
            return await self._in_thread(lambda: work(self._opened()))
        except SpoolCorrupt as error:
            # A new file that is corrupt at once: the medium is dying, and trying on would be a loop.
            raise SpoolUnwritable(
                _("a new spool is corrupt at once ({reason}); replace the storage medium").format(
                    reason=error
                )
            ) from error

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        # Shielded: a cancelled caller must not take back what is queued for the disk.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work))

    def _opened(self) -> Spool:
        if self._spool is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SpoolUnwritable(f"{self._folder}: {error.strerror}") from error
            self._spool = Spool(self._folder / FILE_NAME, self._max_bytes)
            self._epoch = self._spool.epoch
        return self._spool

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _set_aside(self) -> None:
        """Rename the file with its companions, so that SQLite can still read them together.

        The name is drawn: a clock that stands at 1970 must not let one file replace another.
        """
        self._close()
        aside = self._folder / f"{FILE_NAME}.quarantined-{self._clock.wall_ms()}-{secrets.token_hex(4)}"
        try:
            for companion in reversed(_COMPANIONS):
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / (FILE_NAME + companion)).rename(f"{aside}{companion}")
            for old in self._aside()[_KEPT_ASIDE:]:
                for companion in _COMPANIONS:
                    old.with_name(old.name + companion).unlink(missing_ok=True)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SpoolUnwritable(f"{self._folder}: {error.strerror}") from error

    def _aside(self) -> list[Path]:
        """The files set aside, newest first."""
        files = [
            file
            for file in self._folder.glob(f"{FILE_NAME}.quarantined-*")
            if not file.name.endswith(_COMPANIONS[1:])
        ]
        return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)

    def _tell_set_aside(self) -> None:
        """Raised for as long as such a file lies there: a restart must not hide it."""
        aside = self._aside()
        if aside:
            self._health.raise_code(SpoolCorrupt.code, aside[0].name)

    def _lose(self, draft: Draft) -> None:
        loss = Loss(draft.records, draft.oldest_wall_ms, draft.newest_wall_ms, "disk full")
        known = self._losses.get(draft.stream)
        self._losses[draft.stream] = known + loss if known else loss
