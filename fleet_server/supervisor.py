"""Keeps child processes running: starts them, starts them again when they die, and ends them with itself.

One thread, one selector: a process descriptor per child, a pipe for signals, and the time of the
next restart. It knows nothing of what the children do; :mod:`fleet_server.serve` says which they are.

No child outlives this process: each asks the kernel for a signal at its parent's death, so that
even SIGKILL of the supervisor leaves none behind.
"""

import contextlib
import ctypes
import math
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Final, Self

from fleet_protocol.texts import _
from fleet_server.errors import ConfigError, ServerError

FIRST_RESTART_S: Final = 0.2
"""The wait before the first restart; it doubles with each death that follows soon."""

LAST_RESTART_S: Final = 15.0

STEADY_S: Final = 10.0
"""A child that lived this long is started again as if it had never died."""

STOP_S: Final = 5.0
"""How long a child may take to end by itself before it is killed."""

LOG_BYTES: Final = 16 * 1024 * 1024
"""A log that is larger is set aside as ``NAME.1``: a stranger who knocks must not fill the disk."""

LOG_CHECK_S: Final = 30.0
"""How often the size of the logs is looked at."""

_TAIL_BYTES: Final = 8192

_TAIL_LINES: Final = 4
_POLL_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1

# Loaded here: between fork and exec nothing may be imported.
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where its output goes, which descriptors it inherits.

    ``orphaned`` is the signal that it gets when the supervisor dies without a word.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    descriptors: tuple[int, ...] = ()
    orphaned: signal.Signals = signal.SIGKILL


class Stopped(Exception):  # noqa: N818 - it is no error
    """Somebody asked the supervisor to end."""


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    descriptor: int
    started: float
    deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """A context in which children run; leaving it ends them all."""

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._waker, self._wakeup = socket.socketpair()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for end in (self._waker, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        self._selector.register(self._waker, selectors.EVENT_READ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._waker.close()
        self._wakeup.close()

    def start(self, program: Program) -> None:
        """Start ``program`` and keep it running."""
        process = _spawn(program)
        child = _Child(program, process, os.pidfd_open(process.pid), time.monotonic())
        self._children.append(child)
        self._selector.register(child.descriptor, selectors.EVENT_READ, child)

    def wait_until(self, is_ready: Callable[[], bool], limit_s: float, what: str) -> None:
        """Wait for ``is_ready``; ``what`` names it in the complaint.

        Raises:
            ServerError: a child died meanwhile, or it took longer than ``limit_s``.
            Stopped: somebody asked to end.
        """
        deadline = time.monotonic() + limit_s
        while not is_ready():
            if time.monotonic() > deadline:
                raise ServerError(
                    _("{what} is not ready after {limit:.0f} s; look at the logs in the data folder").format(
                        what=what, limit=limit_s
                    )
                )
            for child in self._wait(_POLL_S):
                raise ServerError(_explain(child))

    def run(self) -> None:
        """Keep the children running until somebody asks to end."""
        try:
            while True:
                for child in self._wait(min(self._next_restart_s(), LOG_CHECK_S)):
                    _say(_explain(child))
                    self._schedule(child)
                self._restart_due()
                for child in self._children:
                    _bound(child.program.log)
        except Stopped:
            return

    def _wait(self, limit_s: float | None) -> list[_Child]:
        """Sleep until something happens or ``limit_s`` is over; the children that died."""
        died = []
        for key, _events in self._selector.select(limit_s):
            if key.data is None:
                self._waker.recv(4096)
            else:
                self._bury(key.data)
                died.append(key.data)
        if self._stopping:
            raise Stopped
        return died

    def _bury(self, child: _Child) -> None:
        self._selector.unregister(child.descriptor)
        os.close(child.descriptor)
        child.process.wait()

    def _schedule(self, child: _Child) -> None:
        now = time.monotonic()
        child.deaths = 0 if now - child.started >= STEADY_S else child.deaths
        child.restart_at = now + min(FIRST_RESTART_S * 2.0**child.deaths, LAST_RESTART_S)
        child.deaths += 1

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None and child.restart_at <= now:
                try:
                    child.process = _spawn(child.program)
                except (ServerError, OSError) as error:
                    # No room, no memory, the program just being upgraded: the others go on meanwhile.
                    _say(
                        _("{name} cannot be started: {reason}").format(name=child.program.name, reason=error)
                    )
                    self._schedule(child)
                    continue
                child.descriptor = os.pidfd_open(child.process.pid)
                child.started, child.restart_at = now, None
                self._selector.register(child.descriptor, selectors.EVENT_READ, child)
                _say(_("{name} was started again").format(name=child.program.name))

    def _next_restart_s(self) -> float:
        times = [child.restart_at for child in self._children if child.restart_at is not None]
        return max(0.0, min(times, default=math.inf) - time.monotonic())

    def _end_all(self) -> None:
        """Ask all at once, wait for them together, kill who is left."""
        running = [child.process for child in self._children if child.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    with _open_log(program.log) as log:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=program.descriptors,
            process_group=0,  # Ctrl-C in a terminal reaches the supervisor alone
            preexec_fn=_ends_with(os.getpid(), program.orphaned),  # noqa: PLW1509 - there is one thread
        )


def _open_log(path: Path) -> BinaryIO:
    """``path`` to append to."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    except OSError as error:
        raise ConfigError(_("{path} cannot be written ({reason})").format(path=path, reason=error)) from error


def _bound(log: Path) -> None:
    """Set a large log aside. It is copied and cut, because the child goes on appending to the file."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def _explain(child: _Child) -> str:
    code, program = child.process.returncode, child.program
    how = signal.Signals(-code).name if code < 0 else str(code)
    lines = _tail(program.log)
    said = _(", it said last:\n{lines}").format(lines=lines) if lines else ""
    return _("{name} (process {pid}) ended with {how}, log {log}{said}").format(
        name=program.name, pid=child.process.pid, how=how, log=program.log, said=said
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the supervisor's log is its stderr


def _tail(log: Path) -> str:
    """The end of a log, for a complaint."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
    except OSError:
        return ""


def _ends_with(parent: int, orphaned: signal.Signals) -> Callable[[], None]:
    def ask_kernel() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(orphaned))
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask_kernel
