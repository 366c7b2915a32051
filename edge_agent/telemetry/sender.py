"""Sends what is in the spool and keeps sending until the server says that it is stored.

Per stream a bounded window of unacknowledged batches is under way; events go before telemetry,
older epochs before newer. After a reconnect, and when no acknowledgement comes in time, sending
starts again from the mark: the server knows duplicates by their numbers.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from edge_agent.clock import Clock
from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.spool import Position, Row
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import Ack, Mark, Stream
from fleet_protocol.topics import Channel

_ORDER: Final = (Stream.EVENT, Stream.TELEMETRY)
_ROWS_AT_ONCE: Final = 50
"""Rows read from the spool at once: bounds what is held in memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be under way, and how long an acknowledgement may take.

    ``window`` batches and ``window_bytes`` bytes a stream. The first wait of ``ack_timeout_s``
    doubles with every repetition up to ``ack_timeout_cap_s``, lest a struggling server be flooded.
    """

    window: int = 200
    window_bytes: int = 4 * 2**20
    ack_timeout_s: float = 15.0
    ack_timeout_cap_s: float = 300.0


class Uplink(Protocol):
    """What the sender needs of a session."""

    async def send(self, channel: Channel, payload: bytes, mono_ms: int) -> None:
        """Hand over one message; waits only while too many are under way."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch under way."""

    epoch: str
    seq: int
    size: int


class _Window:
    """One stream's batches under way, oldest first, where to go on, and until when to wait."""

    def __init__(self, limits: Limits) -> None:
        self.cursor = Position()
        self.deadline: float | None = None
        self.repetitions = 0
        self._limits = limits
        self._under_way: deque[_Sent] = deque()
        self._size = 0

    @property
    def room(self) -> int:
        """How many more batches may be sent now."""
        if self._size >= self._limits.window_bytes:
            return 0
        return self._limits.window - len(self._under_way)

    def restart(self) -> None:
        """Begin again from the oldest row that is left."""
        self.cursor, self.deadline, self._size = Position(), None, 0
        self._under_way.clear()

    def sent(self, row: Row, now: float) -> None:
        """``row`` went out."""
        self._under_way.append(_Sent(row.epoch, row.position.seq, len(row.payload)))
        self._size += len(row.payload)
        self.cursor = row.position
        if self.deadline is None:
            self.deadline = now + self._patience()

    def acknowledged(self, mark: Mark, now: float) -> None:
        """The server has everything of ``mark.epoch`` up to ``mark.seq``."""
        left = deque(sent for sent in self._under_way if sent.epoch != mark.epoch or sent.seq > mark.seq)
        if len(left) < len(self._under_way):
            self._under_way, self._size = left, sum(sent.size for sent in left)
            self.repetitions = 0
            self.deadline = now + self._patience() if left else None

    def overdue(self, now: float) -> bool:
        """Whether the server has been silent for too long."""
        return self.deadline is not None and now >= self.deadline

    def _patience(self) -> float:
        doubled = self._limits.ack_timeout_s * 2.0 ** min(self.repetitions, 32)
        return min(doubled, self._limits.ack_timeout_cap_s)


class Sender:
    """Keeps the windows full over one session after another."""

    def __init__(self, store: Store, clock: Clock, health: HealthBoard, limits: Limits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._windows = {stream: _Window(limits or Limits()) for stream in _ORDER}
        self._marks: dict[Stream, Mark] = {}
        self._heard = asyncio.Event()
        self._unapplied: dict[tuple[str, Stream], Mark] = {}
        self._generation = store.generation

    async def run(self, uplink: Uplink) -> None:
        """Send over ``uplink`` until it breaks or the task is cancelled."""
        self._restart()
        while True:
            self._store.changed.clear()
            if self._generation != self._store.generation:
                self._restart()
            await self._repeat_overdue(uplink)
            for stream in _ORDER:
                await self._fill(stream, uplink)
            await self._wait()

    def hear(self, ack: Ack) -> None:
        """What the server says that it has stored; later words on a stream replace earlier ones."""
        for mark in ack.marks:
            self._unapplied[mark.epoch, mark.stream] = mark
        self._heard.set()

    async def acknowledge(self) -> None:
        """Delete what the server has; all that was heard meanwhile in one transaction."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            marks = list(self._unapplied.values())
            self._unapplied.clear()
            await self._apply(marks)

    async def _apply(self, marks: list[Mark]) -> None:
        refused = await self._store.acknowledge(marks)
        now = asyncio.get_running_loop().time()
        for mark in marks:
            if mark not in refused:
                self._windows[mark.stream].acknowledged(mark, now)
                self._marks[mark.stream] = mark
        if not any(window.repetitions for window in self._windows.values()):
            self._health.clear("link.unacknowledged")
        self._store.changed.set()

    def _restart(self) -> None:
        self._generation = self._store.generation
        self._marks.clear()
        for window in self._windows.values():
            window.restart()

    async def _fill(self, stream: Stream, uplink: Uplink) -> None:
        window = self._windows[stream]
        while window.room > 0:
            rows = await self._store.rows(stream, window.cursor, min(window.room, _ROWS_AT_ONCE))
            if not rows:
                return
            for row in rows:
                await uplink.send(stream.channel, row.payload, self._clock.mono_ms())
                window.sent(row, asyncio.get_running_loop().time())

    async def _repeat_overdue(self, uplink: Uplink) -> None:
        for stream, window in self._windows.items():
            if window.overdue(asyncio.get_running_loop().time()):
                window.repetitions += 1
                window.restart()
                self._health.raise_code("link.unacknowledged", stream.value)
                await self._tell_forgotten(stream, uplink)

    async def _tell_forgotten(self, stream: Stream, uplink: Uplink) -> None:
        """A server that was restored from a backup waits for numbers that are gone here."""
        mark = self._marks.get(stream)
        if mark is not None:
            row = await self._store.forgotten(mark)
            if row is not None:
                await uplink.send(stream.channel, row.payload, self._clock.mono_ms())

    async def _wait(self) -> None:
        """Until there is something new, an acknowledgement, or one is overdue."""
        deadlines = [window.deadline for window in self._windows.values() if window.deadline is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(deadlines, default=None)):
                await self._store.changed.wait()
