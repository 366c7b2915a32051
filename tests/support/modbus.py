"""A real Modbus TCP server in a thread of its own, whose registers and answers a test can change."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.support.waiting import free_port


class TestModbusServer:
    """Unit 1 holds ``registers`` from address 0; ``refusal`` is answered instead where set."""

    __test__ = False

    def __init__(self, registers: list[int]) -> None:
        self.port = free_port()
        self.registers = registers
        self.refusal: ExcCodes | None = None
        self.requests: list[tuple[int, int]] = []
        self._speaks: asyncio.Event | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: ModbusTcpServer | None = None

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._call(self._server.shutdown())
            self._server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def silence(self, *, silent: bool) -> None:
        """Whether requests are swallowed."""
        assert self._speaks is not None
        self._loop.call_soon_threadsafe(self._speaks.clear if silent else self._speaks.set)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        self._speaks = asyncio.Event()
        self._speaks.set()
        device = SimDevice(
            id=1,
            simdata=[SimData(0, values=self.registers, datatype=DataType.REGISTERS)],
            action=self._act,
        )
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)

    async def _act(
        self,
        _function: int,
        _start: int,
        address: int,
        count: int,
        current: list[int],
        _values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        self.requests.append((address, count))
        current[: len(self.registers)] = self.registers
        if self._speaks is not None:
            await self._speaks.wait()
        return self.refusal
