"""Counts what a process is about to do to the files below one folder, and ends it right before one of them.

An act is what changes which files there are, begins to fill one, or flushes one: opening for writing,
rename, unlink, mkdir, rmdir, symlink, link, truncate, fsync. Python itself tells of each but the last
before it does it, whoever asks; fsync is wrapped. Between two acts the disk stays as it is, but for the
bytes of a file that is open, so a SIGKILL before each act meets every state that a killed process leaves.

The count is kept in a file that several processes share: an agent and the looks that it starts. The
standard library alone is used, for it is loaded before everything else (:mod:`sitecustomize`).
"""

import fcntl
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEVER = -1
_CONTROL = struct.Struct("<qq")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Before = Callable[[str, str], None]
"""Is told the act and the path, before it is done."""


def _opened(path: Any, _mode: Any, flags: int) -> list[tuple[Any, int]]:
    return [(path, -1)] if flags & _WRITING else []


_PATHS: dict[str, Callable[..., list[tuple[Any, int]]]] = {
    "open": _opened,
    "os.rename": lambda _old, new, _at, folder: [(new, folder)],
    "os.remove": lambda path, folder: [(path, folder)],
    "os.mkdir": lambda path, _mode, folder: [(path, folder)],
    "os.rmdir": lambda path, folder: [(path, folder)],
    "os.symlink": lambda _old, new, folder: [(new, folder)],
    "os.link": lambda _old, new, _at, folder: [(new, folder)],
    "os.truncate": lambda path, _length: [(path, -1)],
}


def watch(root: str, before: Before, after_flush: Callable[[str], None] = lambda _path: None) -> None:
    """From here on, and for good, tell ``before`` of every act of this process below ``root``."""
    root = os.path.realpath(root)
    flush = os.fsync

    def meant(path: Any, folder: int) -> str:
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        base = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
        return os.path.normpath(base / os.fsdecode(path))

    def act(name: str, path: str) -> None:
        if path == root or path.startswith(root + "/"):
            before(name, path[len(root) + 1 :])

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        paths = _PATHS.get(event)
        if paths is not None:
            for path, folder in paths(*arguments):
                act(event.removeprefix("os."), meant(path, folder))

    def flushed(descriptor: int) -> None:
        path = meant(descriptor, -1)
        act("fsync", path)
        flush(descriptor)
        after_flush(path)

    os.fsync = flushed
    sys.addaudithook(heard)


class Control:
    """The shared count, and at which act the end comes."""

    def __init__(self, path: str) -> None:
        """Keep it in the file ``path``, and the acts themselves in ``path`` with ``.log``."""
        self._count = os.open(path, os.O_RDWR | os.O_CREAT)
        self._log = os.open(path + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def arm(self, at: int = NEVER) -> None:
        """Count from zero again; the end comes before act number ``at``."""
        os.pwrite(self._count, _CONTROL.pack(0, at), 0)

    @property
    def acts(self) -> int:
        """How many there were."""
        return self._read()[0]

    @property
    def is_spent(self) -> bool:
        """Whether the end has come."""
        acts, at = self._read()
        return at != NEVER and acts > at

    def before(self, name: str, path: str, end: Callable[[], None]) -> None:
        """Count one act; if it is the one, ``end`` instead."""
        fcntl.flock(self._count, fcntl.LOCK_EX)
        acts, at = self._read()
        os.pwrite(self._count, _CONTROL.pack(acts + 1, at), 0)
        os.write(self._log, f"{acts} {name} {path}\n".encode())
        if acts == at:
            end()
        fcntl.flock(self._count, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back what is open."""
        os.close(self._count)
        os.close(self._log)

    def _read(self) -> tuple[int, int]:
        acts, at = _CONTROL.unpack(os.pread(self._count, _CONTROL.size, 0))
        return acts, at


def interpose(root: str, control: str, *, group: bool = False) -> None:
    """Count every act of this process in ``control``; at the one, end it, or its whole process group."""
    shared = Control(control)

    def end() -> None:
        if group:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    watch(root, lambda name, path: shared.before(name, path, end))
