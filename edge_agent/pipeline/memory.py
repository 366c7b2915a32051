"""What a pipeline remembers, as one value that outlives the process: windows, streaks and pauses.

A model that compares a day with the week before it would otherwise be blind for a week after every
restart. Times are on the monotonic clock of one boot; after another boot they are carried over by
the wall clock, if both boots could trust it.
"""

from typing import Annotated, Final

import msgspec

from fleet_protocol.messages import ClockState, TimeBase

MAX_BYTES: Final = 16 * 2**20
"""Far above what the largest windows take; a larger file is not ours."""


class MetricMemory(msgspec.Struct, array_like=True, frozen=True):
    """The last value of a metric, and for how many buckets it has been held."""

    latest: float
    held: Annotated[int, msgspec.Meta(ge=0)]


class WindowsMemory(msgspec.Struct, array_like=True, frozen=True):
    """The grid and the closed buckets of one model; ``rings`` are float32, oldest first."""

    start_ms: float
    bucket: Annotated[int, msgspec.Meta(ge=0)]
    rings: list[bytes]
    metrics: list[MetricMemory]


class RuleMemory(msgspec.Struct, array_like=True, frozen=True):
    """How often a rule has held in a row, and until when it pauses (nothing: it does not)."""

    streak: Annotated[int, msgspec.Meta(ge=0)]
    quiet_until_ms: float | None


class ModelMemory(msgspec.Struct, array_like=True, frozen=True):
    """One model's memory; it fits the model of this manifest and the policy of this name alone."""

    digest: str
    policy: str
    windows: WindowsMemory | None
    answered: int
    rules: list[RuleMemory]


class Memory(msgspec.Struct, array_like=True, frozen=True):
    """The whole pipeline's memory, as of one instant on both clocks."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    at: TimeBase
    models: list[ModelMemory]


_DECODER: Final = msgspec.msgpack.Decoder(Memory)


def encode(memory: Memory) -> bytes:
    """The bytes of ``memory``."""
    return msgspec.msgpack.encode(memory)


def decode(content: bytes) -> Memory:
    """The memory in ``content``.

    Raises:
        ValueError: it is none of this format.
    """
    return _DECODER.decode(content)


def shift_ms(then: TimeBase, now: TimeBase) -> int | None:
    """What to add to a monotonic time of ``then`` to have it on the clock of ``now``; None if unknown."""
    if then.boot_id == now.boot_id:
        return 0
    if ClockState.UNTRUSTED in {then.clock, now.clock} or now.wall_ms < then.wall_ms:
        return None
    return (now.mono_ms - then.mono_ms) - (now.wall_ms - then.wall_ms)
