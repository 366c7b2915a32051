"""From windows of samples to the numbers that a model takes: the same code in training and on the device.

What each kind of feature computes is stated in :class:`fleet_protocol.manifest.Feature`. A call
allocates nothing that grows with the window, so that it costs some microseconds.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.manifest import Feature, FeatureKind

Vector = NDArray[np.float32]
Compute = Callable[[Vector, Vector], None]


class FeatureMap:
    """All features of a model: windows in, one vector out."""

    def __init__(self, features: tuple[Feature, ...], unit: float = 1.0) -> None:
        """Prepare buffers for ``features``, in the order of the model's input.

        What a call writes is counted in ``unit``: that of an input tensor spares the caller a division.
        """
        self.elements: Final = sum(feature.length for feature in features)
        """How many numbers a call writes."""
        ends = np.cumsum([feature.length for feature in features]).tolist()
        self._parts: Final = tuple(
            (_COMPUTES[feature.kind](feature, unit), slice(end - feature.length, end))
            for feature, end in zip(features, ends, strict=True)
        )

    def __call__(self, windows: Sequence[Vector], out: Vector) -> None:
        """Write the features of ``windows`` into ``out``.

        Args:
            windows: one float32 vector a feature, oldest first, of the feature's ``window`` length.
            out: float32 vector of ``elements`` numbers.
        """
        for window, (compute, place) in zip(windows, self._parts, strict=True):
            compute(window, out[place])


def _standard(feature: Feature, unit: float) -> Compute:
    # Arrays without dimensions: NumPy takes them faster than its own scalars.
    center = np.array(feature.center, dtype=np.float32)
    factor = np.array(1.0 / (feature.scale * unit), dtype=np.float32)

    def compute(window: Vector, out: Vector) -> None:
        np.subtract(window, center, out)
        np.multiply(out, factor, out)

    return compute


def _seasonal(feature: Feature, unit: float) -> Compute:
    length, cycles, floor = feature.length, feature.cycles, feature.scale
    # One product takes the mean period from every period: fewer, larger calls are what is fast here.
    centering = np.eye(cycles + 1, dtype=np.float32)
    centering[:, :cycles] -= np.float32(1.0 / cycles)
    deviations = np.empty((cycles + 1, length), dtype=np.float32)
    past, last = deviations[:cycles].reshape(-1), deviations[cycles]
    center, energy, samples = centering.dot, past.dot, past.size

    def compute(window: Vector, out: Vector) -> None:
        center(window.reshape(cycles + 1, length), deviations)
        spread = math.sqrt(energy(past) / samples)
        np.multiply(last, 1.0 / (max(spread, floor) * unit), out)

    return compute


def _profile(feature: Feature, unit: float) -> Compute:
    length, cycles, floor = feature.length, feature.cycles, feature.scale
    past = length * cycles
    # The product with whole periods gives their mean; that with ones, its own mean.
    average = np.full(cycles, 1.0 / cycles, dtype=np.float32).dot
    total = np.ones(length, dtype=np.float32).dot

    def compute(window: Vector, out: Vector) -> None:
        average(window[:past].reshape(cycles, length), out)
        np.subtract(out, total(out) / length, out)
        spread = math.sqrt(out.dot(out) / length)
        np.multiply(out, 1.0 / (max(spread, floor) * unit), out)

    return compute


_COMPUTES: Final[dict[FeatureKind, Callable[[Feature, float], Compute]]] = {
    FeatureKind.STANDARD: _standard,
    FeatureKind.SEASONAL: _seasonal,
    FeatureKind.PROFILE: _profile,
}
