"""How much each device may send: what is beyond it is refused, and sent again later. Pure.

The limits are for a flood, not for a device that has much to tell. One that comes back after weeks
sends its whole spool as fast as it is acknowledged; its bucket is as large as the largest spool, and full,
because it was away. Who has emptied it is slowed down to the steady rate: an agent keeps what was not
acknowledged, waits 15 s and more, and sends at most its window again, which by then fits.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.buckets import TokenBucket
from fleet_protocol.texts import _
from fleet_server.telemetry.admission import Admitted, Judged, Refusal

MOST_KNOWN: Final = 20_000
"""Devices that are remembered; beyond it those that have sent little of late are forgotten."""

_S_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one device: a steady rate, and what it may send at once after it was away.

    A gateway of 500 metrics at 1 Hz sends one message and some 12 kB a second.
    """

    messages_per_s: float
    bytes_per_s: float
    backlog_messages: float
    backlog_bytes: float


class _Allowance:
    """What one device has left."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._messages = TokenBucket(limits.messages_per_s * _S_PER_HOUR, limits.backlog_messages, now_s)
        self._bytes = TokenBucket(limits.bytes_per_s * _S_PER_HOUR, limits.backlog_bytes, now_s)

    def take(self, now_s: float, messages: int, size: int) -> bool:
        """Whether so much is left; then it is taken."""
        if not self._messages.take(now_s, messages):
            return False
        if self._bytes.take(now_s, size):
            return True
        self._messages.give_back(messages)
        return False

    def is_full(self, now_s: float) -> bool:
        """Whether it is as good as a new one."""
        return self._messages.is_full(now_s) and self._bytes.is_full(now_s)


class Allowances:
    """What all devices have left."""

    def __init__(self, limits: Limits) -> None:
        self._limits: Final = limits
        self._left: dict[str, _Allowance] = {}

    def within(self, judged: Judged, now_s: float) -> Judged:
        """``judged`` with what is beyond its device's allowance among the refused."""
        messages: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for one in judged.admitted:
            device = one.device
            messages[device] = messages.get(device, 0) + 1
            sizes[device] = sizes.get(device, 0) + len(one.arrival.payload)
        tight = {
            device
            for device, count in messages.items()
            if not self._take(device, now_s, count, sizes[device])
        }
        self._forget(now_s)
        return self._each(judged, tight, now_s) if tight else judged

    def _each(self, judged: Judged, tight: set[str], now_s: float) -> Judged:
        """Message by message for the devices that have not enough left for all of theirs."""
        admitted: list[Admitted] = []
        refused = list(judged.refused)
        for one in judged.admitted:
            if one.device not in tight or self._take(one.device, now_s, 1, len(one.arrival.payload)):
                admitted.append(one)
            else:
                refused.append(Refusal(one.arrival, one.device, _("the device sends more than it may")))
        return Judged(admitted, refused)

    def _take(self, device: str, now_s: float, messages: int, size: int) -> bool:
        left = self._left.get(device)
        if left is None:
            left = self._left[device] = _Allowance(self._limits, now_s)
        return left.take(now_s, messages, size)

    def _forget(self, now_s: float) -> None:
        if len(self._left) > MOST_KNOWN:
            self._left = {device: left for device, left in self._left.items() if not left.is_full(now_s)}
