"""The device's two clocks, and whether the wall clock can be believed.

Durations are monotonic. The wall clock only dates: a board without a battery reports 1970, one
with a broken clock 2099, and the server then dates the readings itself from what is said here.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleet_protocol.messages import LAST_WALL_MS, ClockState, TimeBase

BUILD_MS: Final = 1_793_491_200_000
"""1 November 2026 in ms since 1970: no honest clock is earlier. Moved forward at each release."""

_YEAR_MS: Final = 31_556_952_000
BELIEVABLE_MS: Final = 20 * _YEAR_MS
"""A board's clock further after the build than its service life is a broken clock."""

JUMP_MS: Final = 2_000
"""A step of the wall clock against the monotonic one that is told; slewing stays far below it."""

_MS: Final = 1_000_000
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """16 hex digits that change with every boot of this machine."""
    return _BOOT_ID.read_text(encoding="ascii").replace("-", "")[:16]


def _since_boot_ns() -> int:
    # Counts through suspend, so that an age stays an age.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Clock:
    """Both clocks of this boot; the sources are handed in so that a test can live in 1970."""

    def __init__(
        self,
        boot: str,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = _since_boot_ns,
    ) -> None:
        self.boot_id: Final = boot
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._difference_ms = self._difference()

    def mono_ms(self) -> int:
        """Milliseconds since this machine was started."""
        return self._mono_ns() // _MS

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the device believes, within what the protocol can carry."""
        return min(max(self._wall_ns() // _MS, 0), LAST_WALL_MS)

    def state(self) -> ClockState:
        """Whether the wall clock can be believed."""
        plausible = BUILD_MS <= self._wall_ns() // _MS <= BUILD_MS + BELIEVABLE_MS
        return ClockState.TRUSTED if plausible else ClockState.UNTRUSTED

    def now(self) -> TimeBase:
        """This instant on both clocks."""
        return TimeBase(self.boot_id, self.mono_ms(), self.wall_ms(), self.state())

    def jump_ms(self) -> int:
        """By how much the wall clock was set since the last call; 0 for what is no jump."""
        difference = self._difference()
        jump = difference - self._difference_ms
        if abs(jump) < JUMP_MS:
            return 0
        self._difference_ms = difference
        return jump

    def _difference(self) -> int:
        return (self._wall_ns() - self._mono_ns()) // _MS
