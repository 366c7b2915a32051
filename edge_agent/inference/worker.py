"""The process that runs models apart from the agent, so that a crash in native code stops only it.

``python -m edge_agent.inference.worker REQUEST REPLY SOCKET PARENT``: three inherited descriptors
and the agent's process id. It ends when the agent closes the pipe, or dies.
"""

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import numpy as np

from edge_agent import errors
from edge_agent.inference import wire
from edge_agent.inference.bundle import read_bundle
from edge_agent.inference.engine import Engine
from edge_agent.inference.golden import check
from fleet_protocol.texts import _

_PR_SET_PDEATHSIG: Final = 1

_OOM_SCORE: Final = "500"
"""Where memory runs out, the kernel shall take the worker and leave the agent: it can be restarted."""


class Hosted:
    """One loaded model and its shared region."""

    def __init__(self, engine: Engine, descriptor: int) -> None:
        layout = wire.Layout(engine.manifest)
        # Stays mapped for good: the arrays below look into it.
        self._memory: Final = mmap.mmap(descriptor, layout.size)
        self._windows: Final = [
            np.frombuffer(self._memory, np.float32, (place.stop - place.start) // wire.FLOAT, place.start)
            for place in layout.windows
        ]
        self._infer: Final = engine.infer
        self._write: Final = wire.ANSWER.pack_into
        self._place: Final = layout.answer
        self._reason: Final = slice(layout.reason, layout.reason + wire.MAX_REASON)

    def answer(self) -> None:
        """Answer for the windows in the region, into the region."""
        try:
            scored = self._infer(self._windows)
        except Exception as error:  # noqa: BLE001 - a runtime raises what it likes; the agent is told
            self._fail(str(error))
        else:
            self._write(self._memory, self._place, wire.ANSWERED, *scored)

    def _fail(self, reason: str) -> None:
        text = reason.encode()[: wire.MAX_REASON].ljust(wire.MAX_REASON, b"\0")
        self._memory[self._reason] = text
        self._write(self._memory, self._place, wire.FAILED, 0, 0.0, 0.0)


def main() -> None:
    """Serve until the agent is gone."""
    request, reply, control, parent = map(int, sys.argv[1:])
    _settle(parent)
    models: dict[bytes, Hosted] = {}
    read, tell = os.read, os.eventfd_write
    with socket.socket(fileno=control) as channel:
        while ring := read(request, 1):
            if ring in models:
                models[ring].answer()
                tell(reply, 1)
            else:
                _load(channel, models)


def _settle(parent: int) -> None:
    """Die with the agent, leave no core dump of its data, ignore the terminal's signals."""
    # The kernel sends this when the *thread* that started the worker ends. The pipe alone would not
    # do: a worker that hangs in native code never reads it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A stop is for the agent to decide; the closed pipe then ends the worker after its last answer.
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _load(channel: socket.socket, models: dict[bytes, Hosted]) -> None:
    message, descriptors, _flags, _address = socket.recv_fds(channel, wire.MAX_MESSAGE, 1)
    reply: wire.Loaded | wire.Refused
    try:
        load = wire.LOAD_DECODER.decode(message)
        bundle = read_bundle(Path(load.folder))
        median_us = check(bundle, load.runtime).median_us if load.check else 0.0
        models[load.number.to_bytes()] = Hosted(Engine(bundle, load.runtime), descriptors[0])
        reply = wire.Loaded(bundle.digest, median_us)
    except errors.InferenceError as error:
        reply = wire.Refused(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - likewise
        reason = _("the runtime failed on it ({reason})").format(reason=str(error)[:300])
        reply = wire.Refused(errors.ModelRefused.__name__, reason)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    channel.send(wire.ENCODER.encode(reply))


if __name__ == "__main__":
    main()
