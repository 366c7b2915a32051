"""Bounds for callers who are not asked who they are: what a connection may cost without asking for anything.

uvicorn limits the time between two requests, but neither that before the first one nor the number of
connections that ask nothing: whoever holds enough of them open would keep all devices out for good.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_CONNECTIONS: Final = 1000
"""At once; whoever comes then is told to come again, so that a stranger does not take all the memory."""

TOLD: Final = 100
"""Connections beyond it that are still told so; more are cut off without a word."""

HEAD_S: Final = 10.0
"""For how long a connection may be without a whole request; a device asks at once."""

STALLED_MS: Final = 60_000
"""For how long nobody may take what was sent; the rest of an artifact can be fetched later."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 for a caller who has to ask for something soon, or leave."""

    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in if there is room, and give it its time."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS + TOLD:
            transport.abort()
        else:
            self._give_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody has to be hurried any more."""
        self._take_time()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The time for the next request begins."""
        super().on_response_complete()
        self._give_time()

    def _give_time(self) -> None:
        self._take_time()
        if not self.transport.is_closing():
            self._hurry = self.loop.call_later(HEAD_S, self._end_unless_asked)

    def _take_time(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _end_unless_asked(self) -> None:
        if _is_idle(self.cycle):
            self.transport.abort()


def _is_idle(cycle: RequestResponseCycle | None) -> bool:
    """Whether no request is under way; before the first one there is no cycle, whatever its type says."""
    return cycle is None or cycle.response_complete
