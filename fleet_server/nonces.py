"""Numbers that count once: what is signed over one is fresh, whatever the signer's clock says.

A nonce carries its own time and a seal of this process. Giving one out to a stranger therefore costs
no memory; only those that were used are remembered, until they would have ended anyway. A restart
ends all of them, and whoever holds one asks for another.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from typing import Final

LIFE_S: Final = 60.0
"""From asking to signing takes a slow board on a bad line some seconds."""

MOST_USED: Final = 100_000
"""Remembered at once; only who proved a key adds to them, so that this many mean a storm."""

_TIME: Final = 8
_RANDOM: Final = 16
_SEAL: Final = 16
_US: Final = 1_000_000


class Nonces:
    """The nonces of one process; every time is seconds of one monotonic clock."""

    def __init__(self, life_s: float = LIFE_S, most_used: int = MOST_USED) -> None:
        self._life_s: Final = life_s
        self._most_used: Final = most_used
        self._key: Final = secrets.token_bytes(32)
        self._used: dict[bytes, float] = {}
        self._lock: Final = threading.Lock()

    def make(self, now_s: float) -> str:
        """A new one."""
        body = int(now_s * _US).to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM)
        return base64.urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode()

    def is_fresh(self, nonce: str, now_s: float) -> bool:
        """Whether it is one of ours, and young; whether it was used is found out by :meth:`use`."""
        body = self._opened(nonce)
        return body is not None and self._lives(body, now_s)

    def use(self, nonce: str, now_s: float) -> bool:
        """Use it up; False for one that is not fresh, was used before, or cannot be remembered."""
        body = self._opened(nonce)
        if body is None or not self._lives(body, now_s):
            return False
        with self._lock:
            self._forget(now_s)
            if body in self._used or len(self._used) >= self._most_used:
                return False
            self._used[body] = now_s
        return True

    def _forget(self, now_s: float) -> None:
        """Drop those that have ended; the oldest stand first."""
        while self._used:
            oldest = next(iter(self._used))
            if now_s - self._used[oldest] <= self._life_s:
                return
            del self._used[oldest]

    def _opened(self, nonce: str) -> bytes | None:
        try:
            content = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        body, seal = content[:-_SEAL], content[-_SEAL:]
        is_ours = len(body) == _TIME + _RANDOM and hmac.compare_digest(seal, self._seal(body))
        return body if is_ours else None

    def _lives(self, body: bytes, now_s: float) -> bool:
        return 0.0 <= now_s - int.from_bytes(body[:_TIME], "big") / _US <= self._life_s

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_SEAL]
