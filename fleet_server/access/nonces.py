"""Nonces that are given out without being remembered, and count once. Pure: time and chance are handed in.

A nonce says when it ends and carries a keyed digest, so that asking for a million of them costs no memory;
only those that were used are kept, until they would have ended.
"""

import hashlib
import hmac
import secrets
from threading import Lock
from typing import Final

LIFE_S: Final = 600.0
"""How long a person may take at the issuer's page."""


class Nonces:
    """Gives out nonces, and takes each of them back once."""

    def __init__(self, key: bytes) -> None:
        """``key`` is secret; with another one, no nonce of before is good any more."""
        self._key: Final = key
        self._used: dict[str, float] = {}
        self._lock: Final = Lock()

    def make(self, now_s: float) -> str:
        """A new one; ``now_s`` and later times are seconds of one monotonic clock."""
        text = f"{int(now_s + LIFE_S)}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._seal(text)}"

    def redeem(self, nonce: str, now_s: float) -> bool:
        """Whether it was given out here, has not ended, and was not used before; now it is."""
        text, _dot, seal = nonce.rpartition(".")
        if not hmac.compare_digest(self._seal(text).encode(), seal.encode()):
            return False
        ends_s = float(text.partition(".")[0])
        with self._lock:
            self._used = {used: until_s for used, until_s in self._used.items() if until_s > now_s}
            if ends_s <= now_s or nonce in self._used:
                return False
            self._used[nonce] = ends_s
            return True

    def _seal(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
