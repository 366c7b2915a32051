"""The meters: a Modbus TCP server whose units can be made to fail.

Each device is one unit: pressure (m, a slow wave) and flow (L/s) as 32-bit floats, and a 32-bit counter
of the readings that it served. What a unit does is read from ``faults.json`` in its folder at every
request, so that the runner needs no connection of its own; how often each was read is written to
``served.json`` whenever the runner looks (SIGUSR1) and at the end.
"""

import argparse
import asyncio
import json
import math
import signal
import struct
import time
from functools import partial
from pathlib import Path
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REGISTERS: Final = 6
"""Pressure, flow, readings served: two registers each, big-endian."""

SILENCE_S: Final = 30.0
"""A silent unit answers after this: longer than any agent waits."""

_WAVE_S: Final = 20.0


class Meter:
    """One unit's registers, and how often they were read."""

    def __init__(self) -> None:
        self.served = 0
        self._stuck: tuple[float, float] | None = None

    def registers(self, fault: str) -> list[int]:
        """The six registers of the next reading."""
        self.served += 1
        values = self._measure()
        if fault == "stuck":
            self._stuck = self._stuck or values
            values = self._stuck
        else:
            self._stuck = None
        if fault == "not_a_number":
            values = (math.nan, values[1])
        return list(struct.unpack(">6H", struct.pack(">ffI", *values, self.served)))

    def _measure(self) -> tuple[float, float]:
        angle = 2 * math.pi * time.monotonic() / _WAVE_S
        noise = (self.served * 2_654_435_761 % 1000) / 1000
        return 45.0 + 3.0 * math.sin(angle) + 0.2 * noise, 30.0 + 5.0 * math.cos(angle) + 0.5 * noise


class Plant:
    """All meters, and the files that they are told and tell by."""

    def __init__(self, folder: Path, units: int) -> None:
        self.meters: Final = {unit: Meter() for unit in range(1, units + 1)}
        self._folder: Final = folder

    def fault_of(self, unit: int) -> str:
        """What is wrong with ``unit`` now."""
        try:
            faults: dict[str, str] = json.loads((self._folder / "faults.json").read_text())
        except FileNotFoundError:
            return "none"
        return faults.get(str(unit), "none")

    def tell(self) -> None:
        """Write down how often each unit was read."""
        counts = {unit: meter.served for unit, meter in self.meters.items()}
        beside = self._folder / ".served.json"
        beside.write_text(json.dumps({"at": time.monotonic(), "served": counts}))
        beside.replace(self._folder / "served.json")

    async def answer(self, unit: int, registers: list[int]) -> ExcCodes | None:
        """Fill ``registers`` for one request, or fail as the fault says."""
        fault = self.fault_of(unit)
        if fault == "silent":
            await asyncio.sleep(SILENCE_S)
            return ExcCodes.DEVICE_BUSY
        if fault == "exception":
            return ExcCodes.DEVICE_FAILURE
        registers[:REGISTERS] = self.meters[unit].registers(fault)
        return None


async def _action(
    plant: Plant,
    unit: int,
    _function_code: int,
    _start_address: int,
    _address: int,
    _count: int,
    registers: list[int],
    written: list[int] | list[bool] | None,
) -> ExcCodes | None:
    if written is not None:
        return ExcCodes.ILLEGAL_FUNCTION
    return await plant.answer(unit, registers)


def _unit(plant: Plant, unit: int) -> SimDevice:
    block = SimData(0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)
    return SimDevice(id=unit, simdata=[block], action=partial(_action, plant, unit))


async def serve(folder: Path, port: int, units: int) -> None:
    """Answer until SIGTERM."""
    plant = Plant(folder, units)
    server = ModbusTcpServer([_unit(plant, unit) for unit in plant.meters], address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, plant.tell)
    plant.tell()
    try:
        await stop.wait()
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call] # pymodbus types the rest
        plant.tell()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hil.plant")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--units", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.port, options.units))


if __name__ == "__main__":
    main()
