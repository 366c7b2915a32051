"""Reading no faster than is allowed. A slow reader slows the sender: TCP sees to that."""

import time
from collections.abc import Callable
from typing import Final

from edge_agent.link.https import CHUNK
from fleet_protocol.buckets import TokenBucket

_KIB: Final = 1024
_PER_HOUR: Final = 3600
_PIECES_PER_S: Final = 4
"""Read so often a second: a server takes one who reads nothing for a minute for gone."""


class Pace:
    """At most ``kib_per_s``; 0 is as fast as it goes."""

    def __init__(
        self,
        kib_per_s: int,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._now_s: Final = now_s
        self._sleep: Final = sleep
        self._per_s: Final = kib_per_s * _KIB
        self.piece: Final = min(CHUNK, max(_KIB, self._per_s // _PIECES_PER_S)) if kib_per_s else CHUNK
        """How many bytes to read at once."""
        self._bucket: Final = TokenBucket(self._per_s * _PER_HOUR, self.piece, now_s()) if kib_per_s else None

    def spend(self, size: int) -> None:
        """Wait until ``size`` bytes, at most a piece, may have come."""
        if self._bucket is None:
            return
        while not self._bucket.take(self._now_s(), size):
            self._sleep(size / self._per_s)
