"""The server's clock."""

import time
from datetime import UTC, datetime


def wall_ms() -> int:
    """Milliseconds since 1970, as the server believes."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """Now, as the server believes, in UTC."""
    return datetime.now(UTC)
