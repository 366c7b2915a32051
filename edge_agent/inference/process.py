"""The agent's side of a worker process: start it, load models, ask it, see it die, start it again."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_agent import errors
from edge_agent.inference import wire
from edge_agent.inference.placement import Follower
from fleet_protocol.manifest import Runtime
from fleet_protocol.texts import _

CALL_S: Final = 2.0
"""A model of this trade answers in micro- to milliseconds; one that takes this long hangs."""

LOAD_S: Final = 60.0
"""Importing and compiling on the slowest board takes some seconds; this only ends a hanging one."""

RESTARTS: Final = 5
RESTART_WINDOW_S: Final = 60.0
"""More crashes than this are no accident; the board's cores are then worth more than another try."""

_LAST_BREATH_S: Final = 1.0
"""A process whose end of the socket is closed has ended by then."""

_QUIET: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""NumPy's linear algebra would otherwise hold a thread and its buffers for every core."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A model that the worker has: its number there, and what is needed to load it again."""

    load: wire.Load
    digest: str
    region: int
    """Descriptor of the shared memory."""
    median_us: float
    ring: bytes
    """What asks for this model's answer."""


@dataclass(frozen=True, slots=True)
class _Child:
    """One life of the worker."""

    process: subprocess.Popen[bytes]
    request: int
    reply: int
    control: socket.socket
    watch: select.epoll
    pidfd: int
    follower: Follower
    started: float
    """Monotonic seconds."""


class Worker:
    """One worker process and its successors. Any thread may call; calls take turns.

    The kernel ends the process when the thread that started it ends, so open and call it in threads
    that live as long as it shall.
    """

    def __init__(self, niceness: int = 0) -> None:
        """Start the process; it is not waited for. ``niceness`` of all its lives is on top of our own."""
        self._niceness: Final = niceness
        self._lock: Final = threading.Lock()
        self._placed: dict[int, Placed] = {}
        self._pending: deque[Placed] = deque()
        """Models that a restarted process was told to load and has not answered for yet."""
        self._refused: dict[int, errors.InferenceError] = {}
        """Models that it would not load again, with why."""
        self._restarts: deque[float] = deque(maxlen=RESTARTS)
        self._child: _Child | None = _start(niceness)

    @property
    def pid(self) -> int | None:
        """The process id now, or none between lives."""
        return self._child.process.pid if self._child else None

    def load(self, folder: Path, runtime: Runtime, layout: wire.Layout) -> Placed:
        """Load and check the model in ``folder``; the caller maps ``region`` of what it gets.

        Raises:
            RuntimeMissing, ModelRefused: as the worker says, or because loading killed it.
        """
        with self._lock:
            child = self._ready()
            load = wire.Load(len(self._placed), str(folder.resolve()), runtime, check=True)
            region = os.memfd_create("model", os.MFD_CLOEXEC)
            try:
                os.ftruncate(region, layout.size)
                _send(child, load, region)
                loaded = self._receive(child, LOAD_S)
            except BaseException as error:
                os.close(region)
                if isinstance(error, errors.WorkerCrashed):
                    raise errors.ModelRefused(
                        _("loading {folder} killed the worker: {reason}; deliver another model").format(
                            folder=folder, reason=error
                        )
                    ) from None
                raise
            placed = Placed(
                msgspec.structs.replace(load, check=False),
                loaded.digest,
                region,
                loaded.median_us,
                load.number.to_bytes(),
            )
            self._placed[load.number] = placed
            return placed

    def call(self, placed: Placed) -> None:
        """Have the worker answer for what is in ``placed``'s region.

        Raises:
            WorkerCrashed: it died or hung; a successor is being started.
            ModelRefused: a successor found the model's files changed.
        """
        with self._lock:
            child = self._child
            if child is None or self._pending:
                child = self._ready()
            if self._refused and placed.load.number in self._refused:
                raise self._refused[placed.load.number]
            child.follower.follow()
            try:
                os.write(child.request, placed.ring)
                events = child.watch.poll(CALL_S)
            except BrokenPipeError:
                events = [(child.pidfd, 0)]
            except BaseException:
                # The answer to a call that was broken off must not be taken for the next one's.
                self._bury(hung=True)
                raise
            for descriptor, _mask in events:
                if descriptor == child.reply:
                    return
            raise self._bury(hung=not events)

    def close(self) -> None:
        """End the process and give back what it used, also while another thread waits for it to load."""
        child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        with self._lock:
            if self._child:
                _end(self._child)
                self._child = None
            for placed in self._placed.values():
                os.close(placed.region)
            self._placed.clear()
            self._pending.clear()

    def _ready(self) -> _Child:
        """The living process with every model loaded, started now if a limit held it back."""
        if self._child is None:
            self._restart()
        child = self._child
        if child is None:
            raise errors.WorkerCrashed(
                _("the model worker crashed {count} times within {seconds:.0f} s and rests now").format(
                    count=RESTARTS, seconds=RESTART_WINDOW_S
                )
            )
        while self._pending:
            self._await_reload(child, self._pending[0])
            self._pending.popleft()
        return child

    def _await_reload(self, child: _Child, placed: Placed) -> None:
        """Wait a call's time, no longer: a caller may have other things to do than see a slow board load."""
        patience = child.started + LOAD_S - time.monotonic()
        if patience > CALL_S and not select.select([child.control], [], [], CALL_S)[0]:
            raise errors.WorkerCrashed(_("the model worker is still starting again"))
        try:
            digest = self._receive(child, max(patience, CALL_S)).digest
        except (errors.RuntimeMissing, errors.ModelRefused) as error:
            self._refused[placed.load.number] = error
        else:
            if digest != placed.digest:
                changed = _("{folder} has changed since it was opened").format(folder=placed.load.folder)
                self._refused[placed.load.number] = errors.ModelRefused(changed)

    def _receive(self, child: _Child, seconds: float) -> wire.Loaded:
        child.control.settimeout(seconds)
        try:
            answer = child.control.recv(wire.MAX_MESSAGE)
        except TimeoutError:
            raise self._bury(hung=True) from None
        except ConnectionError:
            answer = b""
        if not answer:
            raise self._bury(hung=False)
        reply = wire.REPLY_DECODER.decode(answer)
        if isinstance(reply, wire.Loaded):
            return reply
        missing = reply.error == errors.RuntimeMissing.__name__
        raise (errors.RuntimeMissing if missing else errors.ModelRefused)(reply.reason)

    def _bury(self, *, hung: bool) -> errors.WorkerCrashed:
        """Take leave of the process, start the next, and give the error that says how it ended."""
        child, self._child = self._child, None
        code = _end(child, 0.0 if hung else _LAST_BREATH_S) if child else 0
        self._restart()
        return errors.WorkerCrashed(_describe(code, hung=hung))

    def _restart(self) -> None:
        """Start a successor and tell it to load everything; it works while the agent goes on."""
        now = time.monotonic()
        if len(self._restarts) == RESTARTS and now - self._restarts[0] < RESTART_WINDOW_S:
            return
        self._restarts.append(now)
        self._child = _start(self._niceness)
        self._pending = deque(self._placed.values())
        self._refused.clear()
        for placed in self._pending:
            _send(self._child, placed.load, placed.region)


def _start(niceness: int) -> _Child:
    answering, request = os.pipe()
    reply = os.eventfd(0, os.EFD_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inherited = (answering, reply, theirs.fileno())
    numbers = map(str, (*inherited, os.getpid()))
    try:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "edge_agent.inference.worker", *numbers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # The runtimes chat there; what matters comes back as a reply or as an exit status.
            stderr=subprocess.DEVNULL,
            pass_fds=inherited,
            env=os.environ | _QUIET,
        )
    finally:
        os.close(answering)
        theirs.close()
    pidfd = os.pidfd_open(process.pid)
    if niceness:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, process.pid, own + niceness)
    watch = select.epoll()
    # By edge: each answer is told once, and the eventfd need not be read, which saves a system call.
    watch.register(reply, select.EPOLLIN | select.EPOLLET)
    watch.register(pidfd, select.EPOLLIN)
    return _Child(process, request, reply, ours, watch, pidfd, Follower(process.pid), time.monotonic())


def _send(child: _Child, load: wire.Load, region: int) -> None:
    # A process that is already dead is found out by who waits for its reply.
    with contextlib.suppress(ConnectionError):
        socket.send_fds(child.control, [wire.ENCODER.encode(load)], [region])
        os.write(child.request, wire.MESSAGE)


def _end(child: _Child, patience_s: float = 0.0) -> int:
    """Close everything and collect the exit status; a negative one is a signal.

    ``patience_s`` is for a process that is ending by itself: its own status tells more.
    """
    if not select.select([child.pidfd], [], [], patience_s)[0]:
        child.process.send_signal(signal.SIGKILL)
    code = child.process.wait()
    child.watch.close()
    child.control.close()
    for descriptor in (child.request, child.reply, child.pidfd):
        os.close(descriptor)
    return code


def _describe(code: int, *, hung: bool) -> str:
    if hung:
        return _("the model worker hung and was stopped")
    if code < 0:
        return _("the model worker ended by {name}").format(name=signal.Signals(-code).name)
    return _("the model worker ended with status {code}").format(code=code)
