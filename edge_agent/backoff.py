"""Waiting times between attempts: exponential with full jitter.

Full jitter, because a broker that comes back is otherwise met by every device at once: 10,000
mutual TLS handshakes take a core some 14 seconds.
"""

import random
from typing import Final

_MOST_DOUBLINGS: Final = 32


class FullJitter:
    """Each wait is drawn from 0 up to a ceiling that doubles from ``base_s`` to ``cap_s``."""

    def __init__(self, base_s: float, cap_s: float) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._attempts = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling = min(self._cap_s, self._base_s * 2.0**self._attempts)
        self._attempts = min(self._attempts + 1, _MOST_DOUBLINGS)
        return random.uniform(0.0, ceiling)  # noqa: S311 - spreads load, keeps no secret

    def reset(self) -> None:
        """Begin again from ``base_s``: the last attempt held."""
        self._attempts = 0
