"""On which core the worker runs: the one that its caller is on.

Caller and worker take turns, they never run at once. On one core the hand-over costs some
microseconds; across cores it costs a wake-up of the other core, on some boards ten times as much.

The worker follows the caller and not the other way round: a pinned agent would drag every thread
and child that it starts later onto one core, and many agents on one machine would crowd onto the
same. Where the scheduler puts the callers, there the workers are too, spread as they are.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Final


def _current_core() -> Callable[[], int] | None:
    """The C library's ``sched_getcpu``, which asks no system call; Python has none before 3.13."""
    try:
        getcpu = ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError):
        return None
    return getcpu if getcpu() >= 0 else None


class Follower:
    """Keeps one process on the core of whoever calls :meth:`follow`."""

    def __init__(self, pid: int) -> None:
        self._pid: Final = pid
        self._core = -1
        self._getcpu = _current_core()

    def follow(self) -> None:
        """Move the process here if the caller has moved. A system that forbids it is left alone."""
        if self._getcpu is None:
            return
        core = self._getcpu()
        if core != self._core:
            try:
                os.sched_setaffinity(self._pid, (core,))
                self._core = core
            except OSError:
                self._getcpu = None
