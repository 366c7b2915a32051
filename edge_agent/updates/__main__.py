"""The child: one look, asked for on standard input, told on standard output.

``python -m edge_agent.updates`` is started by the agent; it ends with the look, or with the agent.
"""

import ctypes
import os
import signal
import sys
from typing import Final

from edge_agent.updates.look import look
from edge_agent.updates.spoken import ASK_DECODER, ENCODER, Said

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10
"""Verifying and hashing shall not cost the sensors their turn."""


def main() -> None:
    """Look once."""
    _settle(int(sys.argv[1]))
    look(ASK_DECODER.decode(sys.stdin.buffer.read()), _say)


def _settle(parent: int) -> None:
    """Die with the agent: two looks at once would fight for the same files."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.nice(_NICE)


def _say(said: Said) -> None:
    sys.stdout.buffer.write(ENCODER.encode(said) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
