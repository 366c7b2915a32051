"""What is being fetched right now, what may not be fetched yet, and whether a look shall go on.

A look may take days over a bad line. Meanwhile an order may be withdrawn or replaced, somebody may put
a stick in or cancel, and the director's word becomes old: then the look is ended, wherever it is, and
another one follows. What has come lies in its part.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from edge_agent.updates.planner import Key
from edge_agent.updates.spoken import Held, Progress

LONGEST_S: Final = 60.0
"""A look is never ended sooner than this for its age, however often the device is to look."""

_TICK_S: Final = 1.0
_PAUSE_S: Final = 30.0
"""From one look that a hint ended to the next: who floods a device with hints must not stop it."""


class Loading:
    """What looks said of their downloads, by artifact."""

    def __init__(self, longest_s: float) -> None:
        """A look is ended after ``longest_s``, for another one to ask whether it is still right."""
        self._longest_s: Final = max(longest_s, LONGEST_S)
        self._progress: dict[Key, Progress] = {}
        self._held: dict[Key, Held] = {}
        self._ended_s = float("-inf")
        self._urgent = 0

    def begin(self, progress: Progress) -> None:
        """Something is fetched, and came so far."""
        self._progress[progress.target.key] = progress
        self._held.pop(progress.target.key, None)

    def hold(self, held: Held) -> None:
        """Something may not be fetched now."""
        self._held[held.target.key] = held

    def end(self, key: Key) -> None:
        """Nothing of this artifact is fetched any more."""
        self._progress.pop(key, None)
        self._held.pop(key, None)

    def progress(self, key: Key) -> Progress | None:
        """How far it has come, where it is fetched."""
        return self._progress.get(key)

    def reason(self, key: Key) -> str:
        """Why it waits; empty where it does not."""
        held = self._held.get(key)
        return held.detail if held else ""

    @property
    def again_s(self) -> float:
        """In how many seconds something that waits may be fetched; infinite where nothing does."""
        times = [held.again_s for held in self._held.values() if held.again_s is not None]
        return min(times, default=float("inf"))

    @property
    def spent(self) -> list[Held]:
        """What has cost as much as it may cost."""
        return [held for held in self._held.values() if held.spent]

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """While somebody on site waits for a look that is under way to end."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1

    async def whole(self, look: Coroutine[Any, Any, None], is_hinted: Callable[[], bool]) -> bool:
        """Whether ``look`` came to its end; False where it was ended, and another one has to follow.

        Raises:
            UpdateBroken: as the look.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._longest_s
        task = asyncio.ensure_future(look)
        try:
            while not task.done():
                if self._urgent or loop.time() >= until_s or self._is_overtaken(is_hinted, loop.time()):
                    return False
                await asyncio.wait({task}, timeout=_TICK_S)
            await task
            return True
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})

    def _is_overtaken(self, is_hinted: Callable[[], bool], now_s: float) -> bool:
        """Whether a download goes on though there is something new; a look without one ends soon anyway."""
        is_fetching = any(key not in self._held for key in self._progress)
        if not (is_fetching and is_hinted() and now_s - self._ended_s >= _PAUSE_S):
            return False
        self._ended_s = now_s
        return True
