"""Modbus TCP with pymodbus: registers that lie together are read in one request.

A device that refuses a request for several registers is asked for each alone from then on, so
that one wrong address does not cost its neighbours.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from edge_agent.clock import Clock
from edge_agent.config import METRIC_KINDS, REGISTER_WORDS, Modbus, Register
from edge_agent.errors import SensorRefused, SensorTimeout
from edge_agent.sensors.base import MetricSpec, Sample
from fleet_protocol.messages import Quality
from fleet_protocol.texts import _

MAX_WORDS: Final = 125
"""Registers in one request, by the Modbus specification."""

MAX_HOLE: Final = 8
"""Unused registers that are read along rather than asking twice: a request costs more than they do."""

# What it logs as text is raised here as an error, once.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Block:
    """Registers of one table that are read together."""

    table: str
    start: int
    count: int
    registers: tuple[Register, ...]


def plan(registers: Sequence[Register]) -> list[Block]:
    """As few blocks as are sensible for ``registers``."""
    blocks: list[Block] = []
    for register in sorted(registers, key=lambda each: (each.table, each.address)):
        end = register.address + REGISTER_WORDS[register.type]
        last = blocks[-1] if blocks else None
        if (
            last is not None
            and last.table == register.table
            and register.address - (last.start + last.count) <= MAX_HOLE
            and end - last.start <= MAX_WORDS
        ):
            count = max(last.count, end - last.start)
            blocks[-1] = Block(last.table, last.start, count, (*last.registers, register))
        else:
            blocks.append(Block(register.table, register.address, end - register.address, (register,)))
    return blocks


def value_of(register: Register, block: Block, words: Sequence[int]) -> float | None:
    """The value of ``register`` in what was read for ``block``; none if it is no finite number."""
    if len(words) < block.count:
        return None
    start = register.address - block.start
    raw = AsyncModbusTcpClient.convert_from_registers(
        list(words[start : start + REGISTER_WORDS[register.type]]),
        AsyncModbusTcpClient.DATATYPE[register.type.upper()],
        word_order=register.word_order,
    )
    if not isinstance(raw, int | float):
        raise TypeError(register.type)
    value = raw * register.scale + register.offset
    return value if math.isfinite(value) else None


class ModbusSensor:
    """A Modbus TCP server as a sensor; the connection is kept and renewed when it fails."""

    kind = "modbus"

    def __init__(self, config: Modbus, clock: Clock) -> None:
        self.name: Final = config.name
        self.interval_s: Final = config.interval_s
        self._specs: Final = {
            each.metric: MetricSpec(each.metric, each.unit, METRIC_KINDS[each.kind])
            for each in config.registers
        }
        self.metrics: Final = tuple(self._specs.values())
        self._config = config
        self._clock = clock
        self._blocks = plan(config.registers)
        self._client: AsyncModbusTcpClient | None = None

    async def poll(self) -> list[Sample]:
        """Read all registers.

        Raises:
            SensorTimeout: no connection or no answer; nothing was read.
            SensorRefused: some requests were answered with an exception.
        """
        samples: list[Sample] = []
        refusals: list[str] = []
        for block in list(self._blocks):
            answer = await self._read(block)
            if answer.isError():
                refusals.append(_refusal(block, answer))
                self._split(block, answer)
            samples += self._samples(block, None if answer.isError() else answer.registers)
        if refusals:
            raise SensorRefused("; ".join(refusals), samples)
        return samples

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _read(self, block: Block) -> ModbusPDU:
        try:
            client = await self._connected()
            read = client.read_holding_registers if block.table == "holding" else client.read_input_registers
            answer = await read(block.start, count=block.count, device_id=self._config.unit)
        except (ModbusException, OSError) as error:
            # A late answer must not be taken for the next one: begin with a fresh connection.
            await self.close()
            raise SensorTimeout(
                _("{host}:{port}: {reason}").format(
                    host=self._config.host, port=self._config.port, reason=error
                )
            ) from error
        return answer

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is not None and self._client.connected:
            return self._client
        await self.close()
        self._client = AsyncModbusTcpClient(
            self._config.host,
            port=self._config.port,
            timeout=self._config.timeout_s,
            retries=0,
            reconnect_delay=0,
        )
        if not await self._client.connect():
            raise ModbusException(_("no connection"))
        return self._client

    def _samples(self, block: Block, words: Sequence[int] | None) -> list[Sample]:
        now = self._clock.mono_ms()
        samples = []
        for register in block.registers:
            value = value_of(register, block, words) if words else None
            quality = Quality.BAD if value is None else Quality.GOOD
            samples.append(Sample(self._specs[register.metric], value, quality, now))
        return samples

    def _split(self, block: Block, answer: ModbusPDU) -> None:
        """Ask for each register alone from now on, if the fault may lie in one of them."""
        if len(block.registers) > 1 and answer.exception_code in (
            ExcCodes.ILLEGAL_ADDRESS,
            ExcCodes.ILLEGAL_VALUE,
        ):
            index = self._blocks.index(block)
            self._blocks[index : index + 1] = [
                single for register in block.registers for single in plan([register])
            ]


def _refusal(block: Block, answer: ModbusPDU) -> str:
    try:
        name = ExcCodes(answer.exception_code).name
    except ValueError:
        name = str(answer.exception_code)
    return _("{name} for {table} registers {first} to {last}").format(
        name=name, table=block.table, first=block.start, last=block.start + block.count - 1
    )
