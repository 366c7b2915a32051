"""A token bucket, as both sides count budgets. Pure: the time is handed in."""

from typing import Final

_S_PER_HOUR: Final = 3600.0


class TokenBucket:
    """Holds at most ``burst`` tokens, gains ``per_hour`` an hour, and begins full."""

    def __init__(self, per_hour: float, burst: float, now_s: float) -> None:
        """``now_s`` and every later time are seconds of one monotonic clock."""
        self._per_s: Final = per_hour / _S_PER_HOUR
        self._burst: Final = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Take ``amount`` tokens; False, and none are taken, where there are not so many."""
        self._refill(now_s)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def give_back(self, amount: float) -> None:
        """Put ``amount`` tokens back that were taken for nothing."""
        self._tokens += amount

    def wait_s(self, now_s: float) -> float:
        """Until there is a token to take."""
        self._refill(now_s)
        return max(0.0, 1.0 - self._tokens) / self._per_s

    def is_full(self, now_s: float) -> bool:
        """Whether it is as good as a new one, and need not be remembered."""
        self._refill(now_s)
        return self._tokens >= self._burst

    def _refill(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s <= 0.0:
            return
        self._tokens = min(self._burst, self._tokens + passed_s * self._per_s)
        self._at_s = now_s
