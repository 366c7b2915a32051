"""The plant: a Modbus TCP server whose registers follow EPANET and the real record in fast time.

Each gateway is one unit with a meter: pressure (m) and flow (L/s) as 32-bit floats, and a 32-bit
counter of the readings that were served, which lets the demonstration account for every single one.
It writes ``started.json`` when it begins to serve. On SIGUSR1 its meters refuse from then on, and it writes
``served.json``, the counts. A plant that stopped instead would cut short the answer that it is just giving.
"""

import argparse
import asyncio
import json
import signal
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from use_cases.water_network import record, sites
from use_cases.water_network.demo import plan
from use_cases.water_network.network import STEP_S
from use_cases.water_network.sensors import simulate

REGISTERS: Final = 6
"""Pressure, flow, readings served: two registers each, big-endian."""

Series = Callable[[float], tuple[float, float]]
"""From seconds of plant time to pressure and flow."""


class Meter:
    """One unit's registers: what it measures now, and how often it was asked."""

    def __init__(self, series: Series, plant_time: Callable[[], float]) -> None:
        self._series = series
        self._plant_time = plant_time
        self.served = 0
        self.refuses = False

    def registers(self) -> list[int]:
        """The six registers of the next reading."""
        self.served += 1
        pressure, flow = self._series(self._plant_time())
        return list(struct.unpack(">6H", struct.pack(">ffI", pressure, flow, self.served)))


def network_series(seed: int) -> dict[str, Series]:
    """The simulated network at each of its gateways, by name."""
    frame = simulate(plan.scenario(seed))
    last = len(frame.pressure) - 1

    def at(column: int, seconds: float) -> tuple[float, float]:
        step = min(int(seconds / STEP_S), last)
        return float(frame.pressure[step, column]), float(frame.flow[step, column])

    return {site.name: partial(at, column) for column, site in enumerate(sites.GATEWAYS)}


def record_series() -> Series:
    """The real municipal record, hour by hour; over a gap the meter shows its last value. No pressure."""
    pieces = record.runs()
    first_s = pieces[0].start_s
    hours: list[float] = []
    for piece in pieces:
        gap = (piece.start_s - first_s) // record.STEP_S - len(hours)
        hours += hours[-1:] * gap + piece.flow.tolist()
    last = len(hours) - 1

    def at(seconds: float) -> tuple[float, float]:
        return 0.0, hours[min(int(seconds / record.STEP_S), last)]

    return at


def meters(seed: int) -> dict[int, Meter]:
    """A meter for every post, by Modbus unit, on one clock that starts now."""
    network = network_series(seed)
    main = record_series()
    started = time.monotonic()

    def plant_time() -> float:
        return (time.monotonic() - started) * plan.TIME_FACTOR

    return {
        post.unit: Meter(network[post.device] if post.source is plan.Source.NETWORK else main, plant_time)
        for post in plan.POSTS
    }


async def _answer(
    meter: Meter,
    _function_code: int,
    _start_address: int,
    _address: int,
    _count: int,
    registers: list[int],
    written: list[int] | list[bool] | None,
) -> ExcCodes | None:
    if written is not None:
        return ExcCodes.ILLEGAL_FUNCTION
    if meter.refuses:
        return ExcCodes.DEVICE_FAILURE
    registers[:REGISTERS] = meter.registers()
    return None


def _unit(unit: int, meter: Meter) -> SimDevice:
    block = SimData(0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)
    return SimDevice(id=unit, simdata=[block], action=partial(_answer, meter))


async def serve(port: int, seed: int, folder: Path) -> None:
    """Serve until SIGTERM or SIGINT; say in ``folder`` when that began and how often each unit was read.

    On SIGUSR1 the meters refuse, and the counts are final.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    units = await asyncio.to_thread(meters, seed)
    started_ms = time.time_ns() // 1_000_000
    loop.add_signal_handler(signal.SIGUSR1, _close, units, folder)
    devices = [_unit(unit, meter) for unit, meter in units.items()]
    server = ModbusTcpServer(devices, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    _write(folder / "started.json", {"started_ms": started_ms})
    await stopped.wait()
    await server.shutdown()  # type: ignore[no-untyped-call] # pymodbus types the rest


def _close(units: dict[int, Meter], folder: Path) -> None:
    for meter in units.values():
        meter.refuses = True
    _write(folder / "served.json", {str(unit): meter.served for unit, meter in units.items()})


def _write(path: Path, counts: dict[str, int]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(counts))
    draft.replace(path)


def main() -> None:
    """Run the plant from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.seed, options.folder))


if __name__ == "__main__":
    main()
