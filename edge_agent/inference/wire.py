"""What an agent and its worker say to each other, and where in shared memory.

Models are loaded by messages over a socket; that is seldom. An answer is asked for by one byte
over a pipe (which model) and told by an eventfd; the numbers lie in memory that both sides map:
one region a model, the windows of all features one after the other, then the answer.
"""

import struct
from itertools import accumulate
from typing import Final

import msgspec

from fleet_protocol.manifest import Manifest, Runtime

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one control message; it holds a path and a sentence."""

MAX_MODELS: Final = 255
"""Models of one worker: the byte that rings for a model, less the one that rings for a message."""

MESSAGE: Final = b"\xff"
"""Rings for: read the socket."""

ANSWER: Final = struct.Struct("=iidd")
"""State, label, score, confidence."""

MAX_REASON: Final = 400
"""Bytes of the sentence behind the answer that says why there is none."""

FLOAT: Final = 4
"""Bytes of a window's number."""


ANSWERED: Final = 0
FAILED: Final = 1
"""States of an answer; plain numbers, because both sides compare them in every call."""


class Load(msgspec.Struct, frozen=True):
    """Load the model in ``folder`` on ``runtime`` as ``number``; the region's descriptor travels along."""

    number: int
    folder: str
    runtime: Runtime
    check: bool
    """Whether to run the golden inputs; a model that passed is not examined again after a crash."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """It is loaded, and answers right if it was checked."""

    digest: str
    median_us: float


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It is not; ``error`` is the class in :mod:`edge_agent.errors`."""

    error: str
    reason: str


ENCODER: Final = msgspec.json.Encoder()
LOAD_DECODER: Final = msgspec.json.Decoder(Load)
REPLY_DECODER: Final = msgspec.json.Decoder(Loaded | Refused)


class Layout:
    """Where things lie in a model's region, in bytes."""

    def __init__(self, manifest: Manifest) -> None:
        ends = list(accumulate(feature.window * FLOAT for feature in manifest.features))
        self.windows: Final = tuple(map(slice, [0, *ends[:-1]], ends))
        self.answer: Final = (ends[-1] + 7) // 8 * 8
        self.reason: Final = self.answer + ANSWER.size
        self.size: Final = self.reason + MAX_REASON
