"""Child processes: started, kept alive, killed and stopped by their own process id.

A child runs in a session of its own, so that Ctrl-C reaches whoever started it alone, which then
stops everything in order; and the kernel ends it should its starter be killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_WITHIN_S: Final = 10.0
"""Seconds that a child has to stop by itself before it is killed."""

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process with its log file."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Run ``command``; ``environment`` is added to this process's own."""
        self.name = name
        self.log = log
        self.starts = 0
        self._command = tuple(command)
        self._prefix: tuple[str, ...] = ()
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.alive and self._process else None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended the last time; None while it runs, and before."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, appending what it says to its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (*self._prefix, *self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread runs here when children start
            )
        self.starts += 1

    def mend(self) -> bool:
        """Start it again if it is dead, as a service manager would; whether it had to."""
        if self.alive:
            return False
        self.start()
        return True

    def kill(self) -> None:
        """SIGKILL for it and what runs beside it: it gets no chance to tidy up."""
        if self._process is not None and self.alive:
            if self._prefix:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def rearrange(self, *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        """What is put before the command, and added to the environment, from the next start on."""
        self._prefix = tuple(prefix)
        self._environment = dict(environment or {})

    def wait(self, within_s: float) -> bool:
        """Wait for it to end; whether it did."""
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return not self.alive

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._process is not None and self.alive:
            self._process.terminate()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for its whole session where that is not enough."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def proportional_memory_mib(pid: int) -> float:
    """Proportional set size (PSS) of a process and of its children, in MiB."""
    total = _pss_kib(pid)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        total += _pss_kib(int(child))
    return total / 1024


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
