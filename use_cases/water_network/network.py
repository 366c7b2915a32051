"""The water network that the use case watches: EPANET's hydraulics, stochastic demand, leaks and sensors.

The network is Net3 (92 junctions, 3 tanks, 2 pumps), which ``wntr`` ships. Its demand curve is
replaced by a residential one with a quiet night, its Lake pump by one that is switched by hand every
day. A leak is an emitter: its flow follows the square root of the pressure. Everything that is
random comes from the scenario's seed, so equal scenarios give equal readings.

What the gateways read is made in :mod:`use_cases.water_network.sensors`.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import wntr
from numpy.typing import NDArray
from wntr.epanet.toolkit import ENepanet
from wntr.epanet.util import EN

from use_cases.water_network.demand import Demand, draw_demand

STEP_S: Final = 900
"""Seconds from one reading to the next."""
STEPS_A_DAY: Final = 86_400 // STEP_S
NOMINAL_PRESSURE_M: Final = 40.0
"""Pressure at which a leak's nominal flow is stated; about the middle of Net3."""

_LAKE_PUMP: Final = "10"
_TANK_CONTROLS: Final = ("control 15", "control 16", "control 17", "control 18")


@dataclass(frozen=True, slots=True)
class Leak:
    """A hole at ``node`` that loses ``size_ls`` L/s at 40 m of pressure, open from ``start_step`` on."""

    node: str
    size_ls: float
    start_step: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Some days of the network: what demand does (``seed``), how long, and the leak if there is one."""

    seed: int
    days: int
    leak: Leak | None = None

    @property
    def steps(self) -> int:
        """How many readings each gateway gives."""
        return self.days * STEPS_A_DAY


@dataclass(frozen=True, slots=True)
class Hydraulics:
    """True pressure (m) at nodes and flow (L/s, by size) in pipes: both (steps, watched)."""

    pressure: NDArray[np.float64]
    flow: NDArray[np.float64]


def hydraulics(scenario: Scenario, nodes: tuple[str, ...], pipes: tuple[str, ...]) -> Hydraulics:
    """What EPANET computes for ``scenario`` at ``nodes`` and in ``pipes``, every 15 minutes."""
    pressure = np.empty((scenario.steps, len(nodes)))
    flow = np.empty((scenario.steps, len(pipes)))
    with tempfile.TemporaryDirectory(prefix="epanet-") as folder:
        junctions = _write_input(Path(folder), scenario.days)
        demand = draw_demand(scenario.seed, scenario.days, junctions)
        solver = _Solver(Path(folder), demand, scenario.leak)
        for step in solver.run(scenario.steps):
            pressure[step] = solver.pressures(nodes)
            flow[step] = solver.flows(pipes)
    return Hydraulics(pressure, np.abs(flow))


def junction_names() -> tuple[str, ...]:
    """Names of the junctions of Net3."""
    return tuple(_net3().junction_name_list)


def _net3() -> wntr.network.WaterNetworkModel:
    return wntr.network.WaterNetworkModel(str(Path(wntr.__file__).parent / "library/networks/Net3.inp"))


def _write_input(folder: Path, days: int) -> dict[str, float]:
    """Write Net3 as EPANET input without demand patterns and clock controls; base demands in L/s."""
    net = _net3()
    for name in set(net.control_name_list) - set(_TANK_CONTROLS):
        net.remove_control(name)
    base: dict[str, float] = {}
    for name, junction in net.junctions():
        series = junction.demand_timeseries_list[0]
        base[name] = (
            1000.0 * series.base_value * float(np.mean(net.get_pattern(series.pattern_name).multipliers))
        )
        junction.demand_timeseries_list.clear()
        junction.add_demand(0.0, None)
    net.options.hydraulic.pattern = None
    time = net.options.time
    time.duration = days * 86_400
    time.hydraulic_timestep = time.report_timestep = time.pattern_timestep = STEP_S
    wntr.network.write_inpfile(net, str(folder / "net.inp"), units="LPS")
    return base


class _Solver:
    """EPANET's toolkit driven step by step, with new demands at every step."""

    def __init__(self, folder: Path, demand: Demand, leak: Leak | None) -> None:
        self._epanet = ENepanet(version=2.2)
        self._epanet.ENopen(str(folder / "net.inp"), str(folder / "net.rpt"), str(folder / "net.bin"))
        self._demand = demand
        self._leak = leak
        self._junctions = [self._epanet.ENgetnodeindex(name) for name in demand.nodes]
        self._pump = self._epanet.ENgetlinkindex(_LAKE_PUMP)

    def run(self, steps: int) -> Iterator[int]:
        """Solve and stop at each of ``steps`` steps, where pressures and flows can be read."""
        epanet = self._epanet
        epanet.ENopenH()
        epanet.ENinitH(0)
        try:
            due = 0
            while due < steps * STEP_S:
                on_grid = due % STEP_S == 0
                if on_grid:
                    self._set(due // STEP_S)
                epanet.ENrunH()
                if on_grid:
                    yield due // STEP_S
                advance = epanet.ENnextH()
                if advance <= 0:
                    break
                due += advance
        finally:
            epanet.ENcloseH()
            epanet.ENclose()

    def _set(self, step: int) -> None:
        epanet = self._epanet
        for index, value in zip(self._junctions, self._demand.values[step].tolist(), strict=True):
            epanet.ENsetnodevalue(index, EN.BASEDEMAND, value)
        if step == 0 or self._demand.pump[step] != self._demand.pump[step - 1]:
            epanet.ENsetlinkvalue(self._pump, EN.STATUS, float(self._demand.pump[step]))
        if self._leak is not None and step == self._leak.start_step:
            coefficient = self._leak.size_ls / NOMINAL_PRESSURE_M**0.5
            epanet.ENsetnodevalue(epanet.ENgetnodeindex(self._leak.node), EN.EMITTER, coefficient)

    def pressures(self, nodes: tuple[str, ...]) -> list[float]:
        """Pressure at ``nodes`` now, in m."""
        epanet = self._epanet
        return [epanet.ENgetnodevalue(epanet.ENgetnodeindex(name), EN.PRESSURE) for name in nodes]

    def flows(self, pipes: tuple[str, ...]) -> list[float]:
        """Signed flow in ``pipes`` now, in L/s."""
        epanet = self._epanet
        return [epanet.ENgetlinkvalue(epanet.ENgetlinkindex(name), EN.FLOW) for name in pipes]
