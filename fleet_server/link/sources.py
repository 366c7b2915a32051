"""How often one source may ask, where callers are not asked who they are. Pure: the time is handed in.

A source is an address, or a device that has proved itself. Many devices can stand behind one address
of a mobile network, so the bound is there to keep one caller from taking all of a processor, and no more.
"""

import threading
from collections import OrderedDict
from typing import Final

from fleet_protocol.buckets import TokenBucket

MOST_SOURCES: Final = 10_000
"""Remembered at once; the one not heard of for longest goes first, and begins anew when it comes back."""


class Sources:
    """A bucket of requests for each source, of which it remembers a bounded number."""

    def __init__(self, per_hour: float, burst: float, most: int = MOST_SOURCES) -> None:
        self._per_hour: Final = per_hour
        self._burst: Final = burst
        self._most: Final = most
        self._buckets: Final[OrderedDict[str, TokenBucket]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def allow(self, source: str, now_s: float) -> bool:
        """Count one request of ``source``; False where it asks too often."""
        with self._lock:
            bucket = self._buckets.get(source)
            if bucket is None:
                bucket = self._buckets[source] = TokenBucket(self._per_hour, self._burst, now_s)
                if len(self._buckets) > self._most:
                    self._buckets.popitem(last=False)
            self._buckets.move_to_end(source)
            return bucket.take(now_s)
