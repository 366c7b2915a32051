"""What the gateways read: the true hydraulics through sensors with noise and a resolution."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from use_cases.water_network.network import Scenario, hydraulics
from use_cases.water_network.sites import GATEWAYS

PRESSURE_NOISE_M: Final = 0.15
"""Spread of one reading: a transmitter of 0.1 % on 100 m, and the jitter of the water itself."""
PRESSURE_RESOLUTION_M: Final = 0.05
FLOW_NOISE: Final = 0.01
"""Spread relative to the reading, as electromagnetic meters state it."""
FLOW_NOISE_LS: Final = 0.15
FLOW_RESOLUTION_LS: Final = 0.1

Readings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """Readings every 15 minutes, (steps, gateways), gateways in the order of ``sites.GATEWAYS``."""

    pressure: Readings
    """m of water column."""
    flow: Readings
    """L/s, whichever way it runs."""

    def metrics(self, place: int) -> dict[str, Readings]:
        """The readings of the gateway at ``place`` in ``sites.GATEWAYS``, by name of the metric."""
        return {
            "pressure": np.ascontiguousarray(self.pressure[:, place]),
            "flow": np.ascontiguousarray(self.flow[:, place]),
        }


def simulate(scenario: Scenario) -> Frame:
    """What every gateway reads during ``scenario``; equal scenarios give equal readings."""
    truth = hydraulics(scenario, tuple(each.node for each in GATEWAYS), tuple(each.pipe for each in GATEWAYS))
    rng = np.random.default_rng([scenario.seed, 1])
    pressure = truth.pressure + PRESSURE_NOISE_M * rng.standard_normal(truth.pressure.shape)
    spread = np.hypot(FLOW_NOISE * truth.flow, FLOW_NOISE_LS)
    flow = truth.flow + spread * rng.standard_normal(truth.flow.shape)
    return Frame(
        _rounded(pressure, PRESSURE_RESOLUTION_M), _rounded(np.maximum(flow, 0.0), FLOW_RESOLUTION_LS)
    )


def _rounded(values: NDArray[np.float64], resolution: float) -> Readings:
    return (np.round(values / resolution) * resolution).astype(np.float32)
