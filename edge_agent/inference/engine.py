"""A loaded model from windows to answer, in the process that calls it. Nothing here grows per call.

Imported only where a model runs: in the worker process, or in the agent where isolation is off.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edge_agent.errors import ModelRefused
from edge_agent.inference.answers import Read, Scored, Vector, dequantizer, reader
from edge_agent.inference.backends import load_backend
from edge_agent.inference.bundle import Bundle
from edge_agent.inference.runtime import Array
from edge_agent.pipeline.features import FeatureMap
from fleet_protocol.manifest import ElementType, Runtime, Tensor

Fill = Callable[[Vector], None]


class Engine:
    """Quantize, invoke, read the answer, as the manifest says."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        """Load ``bundle`` on ``runtime``.

        Raises:
            RuntimeMissing: the runtime cannot be imported.
            ModelRefused: the files are not what the manifest says, or the runtime does not take them.
        """
        self.manifest: Final = bundle.manifest
        self.backend, self.variant = load_backend(bundle, runtime)
        self.unit: Final = self.variant.input.scale
        """What ``given`` is counted in: a step of the input's quantization; 1 for a float tensor."""
        self._features: Final = FeatureMap(self.manifest.features, self.unit)
        self.given: Final = np.zeros(self._features.elements, dtype=np.float32)
        """The input: what :meth:`answer` runs on."""
        self._fill: Final = _quantizer(self.variant.input, self.backend.input)
        try:
            self._read: Final = self._reader(self.variant.output)
        except ValueError as error:
            raise ModelRefused(f"{self.manifest.name}: {error}") from None
        self.infer: Final = self._path()

    def answer(self) -> Scored:
        """The answer for the numbers in ``given``.

        Raises:
            ValueError, RuntimeError: they are no numbers, or the runtime failed on them.
        """
        self._fill(self.given)
        return self._read(self.backend.invoke(), self.given)

    def output(self) -> tuple[Scored, Vector]:
        """The answer for ``given``, and the output tensor in real numbers, for comparing."""
        self._fill(self.given)
        values = self.backend.invoke()
        numbers = np.empty(self.variant.output.shape, dtype=np.float32)
        dequantizer(self.variant.output, 1.0)(values, numbers)
        return self._read(values, self.given), numbers.reshape(-1)

    def expected(self, numbers: Vector) -> Scored:
        """The answer that the output ``numbers`` (real) would be for ``given``."""
        plain = Tensor(shape=self.variant.output.shape, dtype=ElementType.FLOAT32)
        return self._reader(plain)(numbers.reshape(plain.shape), self.given)

    def _reader(self, tensor: Tensor) -> Read:
        return reader(self.manifest.output, tensor, self.given.size, self.unit)

    def _path(self) -> Callable[[Sequence[Vector]], Scored]:
        """All of one call, without a look-up: windows of samples, oldest first, to answer.

        What it gives raises ValueError or RuntimeError as :meth:`answer` does.
        """
        features, fill, invoke, read = self._features, self._fill, self.backend.invoke, self._read
        given = self.given

        def infer(windows: Sequence[Vector]) -> Scored:
            features(windows, given)
            fill(given)
            return read(invoke(), given)

        return infer


def _quantizer(tensor: Tensor, buffer: Array) -> Fill:
    """What writes numbers, counted in steps of ``tensor``, into the input ``buffer`` of its format."""
    flat = buffer.reshape(-1)
    if tensor.dtype is ElementType.FLOAT32:

        def copy(given: Vector) -> None:
            flat[...] = given

        return copy
    # NumPy takes arrays without dimensions faster than its own scalars, except for minimum and maximum.
    shift = np.array(tensor.zero_point + _ROUNDING, dtype=np.float32)
    lowest, highest = (
        np.full(flat.size, each + _ROUNDING, dtype=np.float32) for each in _LIMITS[tensor.dtype]
    )
    work = np.empty(flat.size, dtype="<f4")
    rounded = work.view(flat.dtype)[::4]
    add, fmax, fmin = np.add, np.fmax, np.fmin

    def quantize(given: Vector) -> None:
        add(given, shift, work)
        # These two also turn what is no number into a limit; whoever reads the answer notices.
        fmax(work, lowest, out=work)
        fmin(work, highest, out=work)
        flat[...] = rounded

    return quantize


_ROUNDING: Final = float(3 << 22)
"""Added to a float32, it leaves no room for a fraction: the sum is rounded to even, and its lowest
byte is the integer. That spares rounding and converting as steps of their own."""

_LIMITS: Final = {ElementType.INT8: (-128, 127), ElementType.UINT8: (0, 255)}
