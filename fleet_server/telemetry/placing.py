"""Which time a record gets, whatever the device's clock believes.

Pure. A board without a clock battery reports 1970, another one 2099. A batch whose time base is
credible keeps its own times. Else, where the message says when it was sent on the same boot's
monotonic clock, its age is known and counts back from the moment of receiving; a wait in the
broker in between is an error of that repair. Else the time of receiving stands, quarantined:
true as an upper bound only.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from fleet_protocol.messages import ClockState, TimeBase
from fleet_server.database.partitions import DAY_MS

FLOOR_MS: Final = 1_735_689_600_000
"""2025-01-01: before anything could run that speaks this protocol."""

AHEAD_MS: Final = DAY_MS
"""How far ahead of the server a device's clock may be: more than any time zone set as UTC by mistake."""

_SENT: Final = re.compile(r"([0-9a-f]{16}):(\d{1,16})\Z")


class Placement(IntEnum):
    """How far a record's time is to be believed; stored as its ``clock_state``."""

    TRUSTED = 0
    REPAIRED = 1
    QUARANTINED = 2


@dataclass(frozen=True, slots=True)
class Sent:
    """When a message left, on the monotonic clock of one boot."""

    boot_id: str
    mono_ms: int


class Placed(NamedTuple):
    """Where a batch stands in time: offset 0 is ``origin_ms``.

    Offsets from ``low`` to ``high`` are credible and give ``origin_ms + offset`` in ``state``; any
    other one is quarantined at ``received_ms``.
    """

    origin_ms: int
    state: Placement
    low: int
    high: int
    received_ms: int

    def time_of(self, offset_ms: int) -> tuple[int, int]:
        """The time in ms since 1970, and the clock state, of one record."""
        if self.low <= offset_ms <= self.high:
            return self.origin_ms + offset_ms, +self.state
        return self.received_ms, +Placement.QUARANTINED


def parse_sent(text: str | None) -> Sent | None:
    """What the user property ``sent`` (``<boot_id>:<mono_ms>``) says; nothing where it says nothing."""
    match = _SENT.match(text) if text else None
    return Sent(match[1], int(match[2])) if match else None


def place(base: TimeBase, received_ms: int, sent: Sent | None, floor_ms: int = FLOOR_MS) -> Placed:
    """Place a batch that was received at ``received_ms`` of the server's clock."""
    ceiling_ms = received_ms + AHEAD_MS
    if base.clock is ClockState.TRUSTED and floor_ms <= base.wall_ms <= ceiling_ms:
        return _from(base.wall_ms, Placement.TRUSTED, received_ms, floor_ms)
    if sent is not None and sent.boot_id == base.boot_id and sent.mono_ms >= base.mono_ms:
        origin_ms = received_ms - (sent.mono_ms - base.mono_ms)
        if floor_ms <= origin_ms:
            return _from(origin_ms, Placement.REPAIRED, received_ms, floor_ms)
    return Placed(received_ms, Placement.QUARANTINED, 1, 0, received_ms)


def _from(origin_ms: int, state: Placement, received_ms: int, floor_ms: int) -> Placed:
    return Placed(origin_ms, state, floor_ms - origin_ms, received_ms + AHEAD_MS - origin_ms, received_ms)
