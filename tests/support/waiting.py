"""Waiting on conditions instead of sleeping."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 20.0
"""Far beyond what anything here takes on a loaded machine; a wait that lasts so long has failed."""


def wait_until(condition: Callable[[], T], what: str = "", deadline_s: float = DEADLINE_S) -> T:
    """Ask ``condition`` until it holds, and give back what it gave."""
    end = time.monotonic() + deadline_s
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"did not come about in {deadline_s} s: {what or condition}")
        time.sleep(0.01)
    return result


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
