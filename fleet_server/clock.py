"""The server's clock."""

import time


def wall_ms() -> int:
    """Milliseconds since 1970, as the server believes."""
    return time.time_ns() // 1_000_000
