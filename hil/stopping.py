"""Ctrl-C and SIGTERM, taken at chosen moments.

An exception out of a signal handler may strike between the start of a process and the line that
remembers it. So a signal only leaves a note, and whoever waits looks at it.
"""

import signal
import threading
from types import FrameType
from typing import Final

_asked: Final = threading.Event()


class StoppedError(Exception):
    """The user asked for the end."""


def listen() -> None:
    """Take SIGINT and SIGTERM as notes from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


def pause(seconds: float = 0.0) -> None:
    """Let ``seconds`` pass.

    Raises:
        StoppedError: at once, if the user asked for the end.
    """
    if _asked.wait(seconds):
        raise StoppedError


def _note(_number: int, _frame: FrameType | None) -> None:
    _asked.set()
