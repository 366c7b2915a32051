"""From a gateway's readings to model inputs, by the same feature code that runs on the device."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.pipeline.features import FeatureMap
from fleet_protocol.manifest import Feature, FeatureKind
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.scenarios import HISTORY_DAYS

Floats = NDArray[np.float32]

LEAK_FEATURES: Final = tuple(
    Feature(metric=metric, kind=FeatureKind.SEASONAL, length=STEPS_A_DAY, cycles=HISTORY_DAYS - 1, scale=floor)
    for metric, floor in (("pressure", 0.1), ("flow", 0.1))
)
WINDOW: Final = LEAK_FEATURES[0].window
"""Readings that one answer looks back on."""


def inputs(features: tuple[Feature, ...], series: Sequence[Floats], ends: NDArray[np.int64]) -> Floats:
    """Model inputs, (len(ends), elements), for the windows whose last reading is at each of ``ends``.

    Args:
        features: of the model.
        series: readings of each feature's metric, in the order of ``features``.
        ends: places in ``series``, each at least the feature's window less one.
    """
    compute = FeatureMap(features)
    rows = np.empty((len(ends), compute.elements), dtype=np.float32)
    for row, end in zip(rows, ends.tolist(), strict=True):
        windows = [
            metric[end + 1 - feature.window : end + 1] for feature, metric in zip(features, series, strict=True)
        ]
        compute(windows, row)
    return rows
