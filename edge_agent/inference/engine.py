"""A loaded model from windows to answer, in the process that calls it. Nothing here grows per call.

Imported only where a model runs: in the worker process, or in the agent where isolation is off.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edge_agent.errors import ModelRefused
from edge_agent.inference.answers import Scored, Vector, dequantizer, reader
from edge_agent.inference.bundle import Bundle
from edge_agent.inference.runtime import Array, load_backend
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
        self.features: Final = FeatureMap(self.manifest.features)
        self.real: Final = np.zeros(self.features.elements, dtype=np.float32)
        """The input in real numbers: what :meth:`answer` runs on."""
        self._fill: Final = _quantizer(self.variant.input, self.backend.input)
        try:
            self._read: Final = reader(self.manifest.output, self.variant.output, self.real.size)
        except ValueError as error:
            raise ModelRefused(f"{self.manifest.name}: {error}") from None

    def infer(self, windows: Sequence[Vector]) -> Scored:
        """The answer for one window of samples a feature, oldest first.

        Raises:
            ValueError, RuntimeError: the windows hold what is no number, or the runtime failed on them.
        """
        real = self.real
        self.features(windows, real)
        self._fill(real)
        return self._read(self.backend.invoke(), real)

    def answer(self) -> Scored:
        """The answer for the numbers in ``real``."""
        self._fill(self.real)
        return self._read(self.backend.invoke(), self.real)

    def output(self) -> tuple[Scored, Vector]:
        """The answer for ``real``, and the output tensor in real numbers, for comparing."""
        self._fill(self.real)
        values = self.backend.invoke()
        numbers = np.empty(self.variant.output.elements, dtype=np.float32)
        dequantizer(self.variant.output)(values, numbers)
        return self._read(values, self.real), numbers

    def expected(self, numbers: Vector) -> Scored:
        """The answer that the output ``numbers`` (real) would be for ``real``."""
        plain = Tensor(shape=self.variant.output.shape, dtype=ElementType.FLOAT32)
        return reader(self.manifest.output, plain, self.real.size)(numbers, self.real)


def _quantizer(tensor: Tensor, buffer: Array) -> Fill:
    """What writes real numbers into the input ``buffer`` of the format ``tensor``."""
    flat = buffer.reshape(-1)
    if tensor.dtype is ElementType.FLOAT32:

        def copy(real: Vector) -> None:
            flat[...] = real

        return copy
    # Arrays without dimensions: NumPy takes them faster than its own scalars.
    factor, zero_point, lowest, highest = (
        np.array(number, dtype=np.float32)
        for number in (1.0 / tensor.scale, tensor.zero_point, *_LIMITS[tensor.dtype])
    )
    work = np.empty(flat.size, dtype=np.float32)

    def quantize(real: Vector) -> None:
        np.multiply(real, factor, work)
        np.add(work, zero_point, work)
        # These two also turn what is no number into a limit; whoever reads the answer notices.
        np.fmax(work, lowest, out=work)
        np.fmin(work, highest, out=work)
        np.rint(work, work)
        flat[...] = work

    return quantize


_LIMITS: Final = {ElementType.INT8: (-128, 127), ElementType.UINT8: (0, 255)}
