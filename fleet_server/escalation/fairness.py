"""Who may ask, and whose turn it is: budgets of devices and tenants, and a fair queue. Pure."""

from collections import deque
from typing import Final, Generic, TypeVar

from fleet_protocol.buckets import TokenBucket
from fleet_protocol.texts import _

BURST_SHARE: Final = 6
"""A sixth of an hour's budget may be spent at once: ten minutes of trouble everywhere."""

MAX_WAITING: Final = 4096
"""Questions that wait for their turn, of all devices together; at 8 KiB each."""

MAX_WAITING_OF_DEVICE: Final = 256
"""Questions of one device that wait: all that an agent keeps open, as they come after a restart."""

_FORGET_ABOVE: Final = 10_000
"""Buckets kept before full ones, which are as good as new, are forgotten."""

_Item = TypeVar("_Item")


class Budgets:
    """Token buckets of every device and of every tenant; times are monotonic seconds."""

    def __init__(self, device_per_hour: float, tenant_per_hour: float) -> None:
        self._per_hour = {"device": device_per_hour, "tenant": tenant_per_hour}
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def change(self, device_per_hour: float, tenant_per_hour: float) -> None:
        """Go by other budgets from now on; who asks begins with a full one."""
        per_hour = {"device": device_per_hour, "tenant": tenant_per_hour}
        if per_hour != self._per_hour:
            self._per_hour, self._buckets = per_hour, {}

    def objection(self, tenant: str, device: str, now_s: float) -> str | None:
        """Take a token of both; why there is none, or nothing where there was."""
        if not self._bucket("device", device, now_s).take(now_s):
            return _("this device has used up what it may ask")
        if not self._bucket("tenant", tenant, now_s).take(now_s):
            return _("all devices together have used up what they may ask")
        return None

    def _bucket(self, kind: str, name: str, now_s: float) -> TokenBucket:
        key = (kind, name)
        if key not in self._buckets:
            if len(self._buckets) >= _FORGET_ABOVE:
                self._buckets = {k: each for k, each in self._buckets.items() if not each.is_full(now_s)}
            per_hour = self._per_hour[kind]
            self._buckets[key] = TokenBucket(per_hour, max(1.0, per_hour / BURST_SHARE), now_s)
        return self._buckets[key]


class FairQueue(Generic[_Item]):
    """Items that wait, taken from one device after the other, each device's in their order."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[_Item]] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, device: str, item: _Item) -> bool:
        """Let ``item`` wait; False where too much waits already."""
        line = self._lines.get(device, deque())
        if self._waiting >= MAX_WAITING or len(line) >= MAX_WAITING_OF_DEVICE:
            return False
        line.append(item)
        self._lines[device] = line
        self._waiting += 1
        return True

    def pop(self) -> _Item | None:
        """The next one; its device goes to the end of the round."""
        device = next(iter(self._lines), None)
        if device is None:
            return None
        line = self._lines.pop(device)
        item = line.popleft()
        if line:
            self._lines[device] = line
        self._waiting -= 1
        return item
