"""What a pipeline remembers, as one value that outlives the process: windows, streaks and pauses.

A model that compares a day with the week before it would otherwise be blind for a week after every
restart. Times are on the monotonic clock of one boot; after another boot they are carried over by
the wall clock, if both boots could trust it.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from edge_agent.pipeline.comparison import Compared
from edge_agent.pipeline.vitals import Vitals
from fleet_protocol.manifest import Feature
from fleet_protocol.messages import ClockState, TimeBase

FLOAT32_BYTES: Final = 4
"""Bytes of a ring's value."""

MAX_HELD: Final = 4
"""Buckets in a row that hold an old value; one lost poll or three are no reason to start anew."""

MAX_BYTES: Final = 16 * 2**20
"""Far above what the largest windows take; a larger file is not ours."""


class MetricMemory(msgspec.Struct, array_like=True, frozen=True):
    """The last value of a metric, and for how many buckets it has been held."""

    latest: float
    held: Annotated[int, msgspec.Meta(ge=0)]


UNSEEN: Final = MetricMemory(math.nan, MAX_HELD)
"""A metric that was never measured: it has nothing to hold."""


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


class Layout(msgspec.Struct, array_like=True, frozen=True):
    """What the rings of a :class:`WindowsMemory` hold: one metric a ring, one value a step."""

    step_s: float
    rings: list[str]


class ModelMemory(msgspec.Struct, array_like=True, frozen=True):
    """One model's memory.

    Rules and vitals fit the policy of this name alone. Windows fit the model of this manifest, and through
    ``layout`` a successor of the same ``name`` that looks at the same metrics in the same step. Only a
    model in shadow has ``compared`` anything.
    """

    digest: str
    policy: str
    windows: WindowsMemory | None
    answered: int
    rules: list[RuleMemory]
    name: str = ""
    layout: Layout | None = None
    vitals: Vitals = Vitals()
    compared: Compared | None = None


class Memory(msgspec.Struct, array_like=True, frozen=True):
    """The whole pipeline's memory, as of one instant on both clocks."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    at: TimeBase
    models: list[ModelMemory]


def refit(
    memory: WindowsMemory, layout: Layout, step_s: float, features: Sequence[Feature]
) -> WindowsMemory | None:
    """``memory`` as windows for other ``features`` would have it; none where the step is another one.

    A model that looks back eight days would otherwise be blind for eight days after its update. What
    is too short stays short and fills up; a metric that was not looked at before begins empty.

    Raises:
        ValueError: ``memory`` is not of ``layout``.
    """
    if layout.step_s != step_s:
        return None
    longest = _longest(memory, layout)
    metrics = dict(zip(dict.fromkeys(layout.rings), memory.metrics, strict=True))
    wanted = dict.fromkeys(feature.metric for feature in features)
    return WindowsMemory(
        memory.start_ms,
        memory.bucket,
        [longest.get(feature.metric, b"")[-FLOAT32_BYTES * feature.window :] for feature in features],
        [metrics.get(metric, UNSEEN) for metric in wanted],
    )


def beyond(memory: WindowsMemory, layout: Layout, features: Sequence[Feature]) -> dict[str, bytes]:
    """By metric of ``features``, what ``memory`` holds of it, where that is more than they look at.

    Raises:
        ValueError: ``memory`` is not of ``layout``.
    """
    looked_at: dict[str, int] = {}
    for feature in features:
        looked_at[feature.metric] = max(looked_at.get(feature.metric, 0), feature.window)
    return {
        metric: values
        for metric, values in _longest(memory, layout).items()
        if metric in looked_at and len(values) > FLOAT32_BYTES * looked_at[metric]
    }


def _longest(memory: WindowsMemory, layout: Layout) -> dict[str, bytes]:
    longest: dict[str, bytes] = {}
    for metric, values in zip(layout.rings, memory.rings, strict=True):
        longest[metric] = max(longest.get(metric, b""), values, key=len)
    return longest


def moved(memory: ModelMemory, shift_ms: int) -> ModelMemory:
    """``memory`` with the times of its windows moved by ``shift_ms``."""
    if memory.windows is None:
        return memory
    windows = msgspec.structs.replace(memory.windows, start_ms=memory.windows.start_ms + shift_ms)
    return msgspec.structs.replace(memory, windows=windows)


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
