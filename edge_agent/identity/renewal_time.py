"""When a certificate is renewed, and how soon it is tried again. Pure: every time is handed in."""

from typing import Final

from edge_agent.identity.identity import Identity

SHARE: Final = 2 / 3
"""Of its life; the last third is for a link that is down and a server that is away."""

SPREAD: Final = 1 / 12
"""Of its life, over which those that were issued together are spread: two and a half days of thirty."""

FIRST_WAIT_S: Final = 5.0
_LONGEST_WAIT_S: Final = 3600.0
_ATTEMPTS: Final = 100
"""So many at least fit into a certificate's life."""


def renewal_ms(not_before_ms: int, not_after_ms: int, jitter: float) -> int:
    """When to renew; ``jitter`` is between 0 and 1. Never before two thirds, always before the end."""
    return not_before_ms + int((not_after_ms - not_before_ms) * (SHARE + SPREAD * jitter))


def wait_ms(not_before_ms: int, not_after_ms: int, now_ms: int, jitter: float) -> int:
    """How long to wait before renewing; 0 where it is time."""
    return max(0, renewal_ms(not_before_ms, not_after_ms, jitter) - now_ms)


def longest_wait_s(not_before_ms: int, not_after_ms: int) -> float:
    """How far attempts that fail may be apart: an hour, and less for a certificate that lasts hours."""
    return min(_LONGEST_WAIT_S, (not_after_ms - not_before_ms) / 1000 / _ATTEMPTS)


def jitter_of(serial: str) -> float:
    """Between 0 and 1, and always the same for one certificate: its serial number is random."""
    digits = serial[-8:]
    return int(digits, 16) / 16.0 ** len(digits)


def due_ms(identity: Identity) -> int:
    """When ``identity`` is renewed, in ms since 1970."""
    return renewal_ms(identity.not_before_ms, identity.not_after_ms, jitter_of(identity.serial))
