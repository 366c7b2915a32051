"""From a gateway's readings to model inputs, by the same feature code that runs on the device."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.pipeline.features import FeatureMap
from fleet_protocol.manifest import Feature, FeatureKind
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.scenarios import HISTORY_DAYS

Floats = NDArray[np.float32]


def _leak_feature(metric: str, kind: FeatureKind) -> Feature:
    return Feature(metric=metric, kind=kind, length=STEPS_A_DAY, cycles=HISTORY_DAYS - 1, scale=0.1)


LEAK_FEATURES: Final = (
    _leak_feature("pressure", FeatureKind.SEASONAL),
    _leak_feature("flow", FeatureKind.SEASONAL),
    _leak_feature("flow", FeatureKind.PROFILE),
)
"""A day of both against the week before, and the week's usual day, which tells the hour and the site."""
LEAK_LIMIT: Final = 4.0
"""Where the leak model's int8 input ends; what is further out is far out."""
WINDOW: Final = LEAK_FEATURES[0].window
"""Readings that one answer looks back on."""


def inputs(features: tuple[Feature, ...], metrics: Mapping[str, Floats], ends: NDArray[np.int64]) -> Floats:
    """Model inputs, (len(ends), elements), for the windows whose last reading is at each of ``ends``.

    Args:
        features: of the model.
        metrics: readings of each metric that a feature names.
        ends: places in the readings, each at least the feature's window less one.
    """
    compute = FeatureMap(features)
    rows = np.empty((len(ends), compute.elements), dtype=np.float32)
    for row, end in zip(rows, ends.tolist(), strict=True):
        windows = [metrics[feature.metric][end + 1 - feature.window : end + 1] for feature in features]
        compute(windows, row)
    return rows
