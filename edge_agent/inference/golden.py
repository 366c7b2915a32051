"""The golden check: does this board, with this runtime, still compute the model?"""

import io
import time
import zipfile
import zlib
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from edge_agent.errors import ModelRefused
from edge_agent.inference.answers import Vector
from edge_agent.inference.bundle import Bundle
from edge_agent.inference.engine import Engine
from fleet_protocol.manifest import Runtime
from fleet_protocol.texts import _

MAX_UNPACKED: Final = 64 * 1024 * 1024
"""Bytes of both arrays once unpacked; an archive that claims more is not opened."""

MIN_TIMED: Final = 30
"""Calls that the speed is the median of; a handful of golden inputs is run through again."""


_UNUSABLE: Final = (
    ValueError, KeyError, OSError, EOFError, RuntimeError, MemoryError, OverflowError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What unpacking bytes that are no such archive raises, an encrypted or absurdly large one included."""


class Verdict(NamedTuple):
    """What the check found."""

    worst: float
    """The largest absolute difference of an output number from the expected one."""

    agreement: float
    """The share of golden inputs whose label is the expected one."""

    median_us: float
    """One call from real input to answer."""


def check(bundle: Bundle, runtime: Runtime) -> Verdict:
    """Run every golden input of ``bundle`` on ``runtime``.

    The model is loaded for this alone: no runtime resets all that a stateful model remembers, and
    the first real window shall meet a fresh one.

    Raises:
        RuntimeMissing: the runtime cannot be imported.
        ModelRefused: a file cannot be used, or the answers are not the expected ones.
    """
    engine = Engine(bundle, runtime)
    inputs, outputs = _load(engine, bundle)
    try:
        worst, agreement = _compare(engine, inputs, outputs)
        verdict = Verdict(worst, agreement, _speed(engine, inputs))
    except (RuntimeError, ValueError) as error:
        raise ModelRefused(
            _("{model}: no answer to a golden input ({reason})").format(
                model=engine.manifest.name, reason=str(error)[:200]
            )
        ) from error
    _judge(engine, verdict)
    return verdict


def _compare(engine: Engine, inputs: Vector, outputs: Vector) -> tuple[float, float]:
    worst, agreed = 0.0, 0
    for given, wanted in zip(inputs, outputs, strict=True):
        np.divide(given, engine.unit, out=engine.given)
        expected = engine.expected(wanted)
        scored, numbers = engine.output()
        # NumPy's maximum keeps what is no number, Python's may lose it.
        worst = float(np.maximum(worst, np.max(np.abs(numbers - wanted))))
        agreed += scored[0] == expected[0]
    return worst, agreed / len(inputs)


def _speed(engine: Engine, inputs: Vector) -> float:
    timings = []
    for turn in range(max(MIN_TIMED, len(inputs))):
        np.divide(inputs[turn % len(inputs)], engine.unit, out=engine.given)
        started = time.perf_counter_ns()
        engine.answer()
        timings.append(time.perf_counter_ns() - started)
    return median(timings) / 1000


def _judge(engine: Engine, verdict: Verdict) -> None:
    golden = engine.manifest.golden
    # "not <=" and not ">": an output that is no number must fail too.
    if not verdict.worst <= golden.tolerance or verdict.agreement < golden.agreement:
        raise ModelRefused(
            _(
                "{model}: golden inputs fail on this board: worst difference {worst:.4g} of "
                "{tolerance:.4g} allowed, labels agree on {agreement:.1%} of {wanted:.1%} asked; "
                "use another runtime for it"
            ).format(
                model=engine.manifest.name,
                worst=verdict.worst,
                tolerance=golden.tolerance,
                agreement=verdict.agreement,
                wanted=golden.agreement,
            )
        )


def _load(engine: Engine, bundle: Bundle) -> tuple[Vector, Vector]:
    """Golden inputs and outputs as (n, elements) float32."""
    name = bundle.manifest.golden.file
    content = bundle.read(name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED:
            raise ValueError(_("{size} bytes unpacked").format(size=unpacked))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            inputs = _rows(arrays["inputs"], engine.given.size)
            outputs = _rows(arrays["outputs"], engine.variant.output.elements)
        if not len(inputs) == len(outputs) > 0:
            raise ValueError(
                _("{inputs} inputs, {outputs} outputs").format(inputs=len(inputs), outputs=len(outputs))
            )
    except _UNUSABLE as error:
        raise ModelRefused(
            _("{model}: golden file {name} cannot be used ({reason})").format(
                model=bundle.manifest.name, name=name, reason=str(error)[:200]
            )
        ) from None
    return inputs, outputs


def _rows(array: object, elements: int) -> Vector:
    numbers = np.asarray(array)
    if numbers.dtype.kind != "f" or numbers.ndim < 1 or not np.isfinite(numbers).all():
        raise ValueError(_("not an array of finite real numbers"))
    return np.ascontiguousarray(numbers.reshape(len(numbers), elements), dtype=np.float32)
