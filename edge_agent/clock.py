"""The device's two clocks, and whether the wall clock can be believed.

Durations are monotonic. The wall clock only dates: a board without a battery reports 1970, one
with a broken clock 2099, and the server then dates the readings itself from what is said here.

Where the clock stops with the power, even a believable time is believed late: many systems let it
go on at boot from where it stopped, which is wrong by the length of the outage. It is then believed
from the moment on at which a time service, or a person, has set it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.timesync import is_synchronized
from fleet_protocol.messages import LAST_WALL_MS, ClockState, TimeBase
from fleet_protocol.texts import _

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
    """Both clocks of this boot; the sources are handed in so that a test can live in 1970.

    ``may_stop``: the wall clock may have stood still while the power was off.
    """

    def __init__(
        self,
        boot: str,
        *,
        may_stop: bool = False,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = _since_boot_ns,
        synchronized: Callable[[], bool] = is_synchronized,
    ) -> None:
        self.boot_id: Final = boot
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._difference_ms = self._difference()
        self._first_difference_ms: Final = self._difference_ms
        self._synchronized = synchronized
        self._was_set = not may_stop

    def mono_ms(self) -> int:
        """Milliseconds since this machine was started."""
        return self._mono_ns() // _MS

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the device believes, within what the protocol can carry."""
        return min(max(self._wall_ns() // _MS, 0), LAST_WALL_MS)

    def state(self) -> ClockState:
        """Whether the wall clock can be believed."""
        return ClockState.UNTRUSTED if self.doubt() else ClockState.TRUSTED

    def doubt(self) -> str:
        """Why the wall clock cannot be believed, in words; empty if it can."""
        if not BUILD_MS <= self._wall_ns() // _MS <= BUILD_MS + BELIEVABLE_MS:
            return _("it shows a time before this software or far after it")
        if not self._was_set:
            # Remembered, because the kernel forgets after some hours without an answer.
            stepped = abs(self._difference() - self._first_difference_ms) >= JUMP_MS
            self._was_set = stepped or self._synchronized()
        return (
            "" if self._was_set else _("it may have stood still without power, and nobody has set it since")
        )

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
