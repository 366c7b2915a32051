"""``edge-agent launch --config FILE``, or ``python -m edge_agent.launcher --config FILE``.

Signals that end it are passed on, and it ends with the agent. Killed, it takes the agent with it; the
next one waits until the data folder is free. Nothing that it cannot write keeps it from starting an agent.
"""

import argparse
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from edge_agent import durable
from edge_agent.launcher import decision, record
from edge_agent.launcher.decision import IN_USE, End
from edge_agent.launcher.record import FITTED, FOLDER, Record, RecordUnreadable
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger("edge_agent.launcher")

_STOP_WITHIN_S: Final = 20.0
"""Seconds that an agent has to stop by itself before it is killed."""

_LOOK_AGAIN_S: Final = 0.2
"""How often a data folder that is in use is tried again."""

_BAD_CONFIG: Final = 3
_CANNOT_START: Final = 127
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_HEARD: Final = _STOPPING | {signal.SIGCHLD}


class Launcher:
    """Starts one agent after another until it is told to stop."""

    def __init__(self, config: Path, data: Path) -> None:
        self._config: Final = config
        self._data: Final = data
        self._slots: Final = data / FOLDER
        self._unwritten: tuple[Record, Record] | None = None
        """What the disk says, and what could not be written in its place and holds all the same."""
        self._stop_by: int | None = None

    def run(self) -> int:
        """Run; the exit code is that of the last agent."""
        strikes = 0
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        while self._wait_for_folder():
            standing = decision.to_start(self._read(), self._is_whole)
            self._write(standing)
            end = self._one_life(standing)
            after = self._read()
            if self._stop_by is not None:
                self._write(decision.stopped(after))
                return max(0, end.code)
            then = decision.ended(after, end, strikes)
            strikes = then.strikes
            self._write(then.record)
            _LOG.info(
                _("{name} ended with code {code}; the next start is in {seconds:.1f} s").format(
                    name=_named(standing.current), code=end.code, seconds=then.pause_s
                )
            )
            self._pause(then.pause_s)
        return 0

    def _one_life(self, standing: Record) -> End:
        """Start what ``standing`` says, and see how it ends."""
        began = time.monotonic()
        try:
            child = subprocess.Popen(
                self._command(standing.current),
                preexec_fn=_prepared(os.getpid()),  # noqa: PLW1509 - there is one thread
                # Ctrl-C reaches the launcher alone, which passes it on once.
                start_new_session=True,
            )
        except OSError as error:
            _LOG.error(
                _("{name} cannot be started: {reason}").format(name=_named(standing.current), reason=error)
            )
            return End(_CANNOT_START, 0.0)
        _LOG.info(_("{name} is started, process {pid}").format(name=_named(standing.current), pid=child.pid))
        overdue = self._watch(child, standing)
        return End(child.wait(), time.monotonic() - began, overdue)

    def _watch(self, child: "subprocess.Popen[bytes]", standing: Record) -> bool:
        """Wait for its end; whether it was ended because it had not proved itself in time."""
        due = time.monotonic() + standing.deadline_s if standing.trying else None
        while child.poll() is None:
            heard = _heard(None if due is None else due - time.monotonic())
            if heard in _STOPPING and heard is not None:
                self._stop_by = heard
                _end(child, heard)
            elif heard is None and self._read().trying:
                _end(child, signal.SIGTERM)
                return True
            elif heard is None:
                due = None
        return False

    def _wait_for_folder(self) -> bool:
        """Wait until no agent holds the data folder; False where the launcher was told to stop."""
        told = False
        while self._stop_by is None:
            try:
                with (self._data / "agent.lock").open("a") as lock:
                    if _is_free(lock):
                        return True
            except OSError as error:
                _LOG.error("%s", error)
                return True  # the agent says what to do
            if not told:
                _LOG.warning(
                    _("another agent runs on {folder}; waiting for its end").format(folder=self._data)
                )
                told = True
            self._pause(_LOOK_AGAIN_S)
        return False

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._stop_by is None and (left := end - time.monotonic()) > 0:
            heard = _heard(left)
            if heard in _STOPPING:
                self._stop_by = heard

    def _command(self, slot: str) -> list[str]:
        python = sys.executable if slot == FITTED else str(record.python_of(self._slots, slot))
        return [
            python, "-I", "-B", "-m", "edge_agent", "run", "--config", str(self._config),
            "--fitted", sysconfig.get_path("purelib"),
        ]  # fmt: skip

    def _is_whole(self, slot: str) -> bool:
        return record.is_whole(self._slots, slot)

    def _read(self) -> Record:
        """The record as it stands, or as it would if it could be written."""
        found = self._on_disk()
        if self._unwritten is not None and self._unwritten[0] == found:
            return self._unwritten[1]
        return found

    def _on_disk(self) -> Record:
        try:
            return record.read(self._slots)
        except RecordUnreadable as error:
            file = self._slots / record.CURRENT
            _LOG.error(_("{file} cannot be read and is set aside: {reason}").format(file=file, reason=error))
        try:
            record.set_aside(self._slots)
        except OSError as error:
            _LOG.error("%s", error)
        return Record(reason=_("the record of what ran could not be read"))

    def _write(self, new: Record) -> None:
        """Write it if it is another; what cannot be written is kept in mind."""
        before = self._on_disk()
        if new == before:
            return
        if new.reason and new.reason != before.reason:
            _LOG.warning(_("{name} runs again: {reason}").format(name=_named(new.current), reason=new.reason))
        try:
            record.write(self._slots, new)
        except OSError as error:
            _LOG.error(_("{folder} cannot be written: {reason}").format(folder=self._slots, reason=error))
            self._unwritten = (before, new)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the launcher; the exit code."""
    parser = argparse.ArgumentParser(
        prog="edge-agent launch", description=_("Start the agent's current software.")
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))
    return launch(parser.parse_args(arguments).config)


def launch(config: Path) -> int:
    """Run the launcher on the configuration in ``config``; the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    try:
        data = config.absolute().parent / tomllib.loads(config.read_text(encoding="utf-8"))["data"]
        with _alone(data / FOLDER) as alone:
            if alone:
                return Launcher(config.absolute(), data).run()
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(
            _("edge-agent: {file} cannot be used ({reason}); correct it, then start again\n").format(
                file=config, reason=error
            )
        )
        return _BAD_CONFIG
    sys.stderr.write(_("edge-agent: another launcher runs on {folder}; stop it first\n").format(folder=data))
    return IN_USE


def _prepared(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the agent: it hears signals, and ends with its launcher."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        if os.getppid() != parent:
            os._exit(_CANNOT_START)

    return prepare


def _heard(within_s: float | None) -> int | None:
    """The next signal; None where none comes within ``within_s`` seconds."""
    if within_s is None:
        return signal.sigwaitinfo(_HEARD).si_signo
    info = signal.sigtimedwait(_HEARD, max(0.0, within_s))
    return None if info is None else info.si_signo


def _end(child: "subprocess.Popen[bytes]", number: int) -> None:
    """Have it stop in an orderly way, or else kill it."""
    child.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
    try:
        child.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()


@contextmanager
def _alone(slots: Path) -> Iterator[bool]:
    """Hold the folder of slots: whether no other launcher does."""
    durable.make_folder(slots)
    with (slots / "launcher.lock").open("a") as lock:
        yield _is_free(lock)


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(slot: str) -> str:
    return _("the software in slot {slot}").format(slot=slot[:12]) if slot else _("the base installation")


if __name__ == "__main__":
    sys.exit(main())
