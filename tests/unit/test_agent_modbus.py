"""The Modbus driver against a real server: values, requests, exceptions, time-outs, reconnects."""

import asyncio
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.constants import ExcCodes

from edge_agent.config import REGISTER_WORDS, Modbus, Register
from edge_agent.errors import SensorRefused, SensorTimeout
from edge_agent.sensors.modbus import MAX_WORDS, ModbusSensor, plan
from fleet_protocol.messages import Quality
from tests.support.drafts import HandClock
from tests.support.modbus import TestModbusServer


def words(form: str, value: float) -> list[int]:
    raw = struct.pack(f">{form}", value)
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


REGISTERS = [
    *words("f", 42.5),
    *reversed(words("f", 17.25)),
    *words("h", -7),
    *words("H", 65535),
    *words("i", -100_000),
    *words("I", 4_000_000_000),
    *words("f", float("nan")),
    *([0] * 88),
]
CONFIG = (
    Register(metric="pressure", unit="m", address=0),
    Register(metric="flow", address=2, word_order="little", scale=2.0, offset=0.5),
    Register(metric="temperature", address=4, type="int16", scale=0.1),
    Register(metric="level", address=5, type="uint16"),
    Register(metric="balance", address=6, type="int32"),
    Register(metric="total", address=8, type="uint32", kind="counter"),
    Register(metric="broken", address=10),
)
VALUES = {
    "pressure": 42.5,
    "flow": 35.0,
    "temperature": pytest.approx(-0.7),
    "level": 65535.0,
    "balance": -100_000.0,
    "total": 4e9,
    "broken": None,
}


@pytest.fixture
def server() -> Iterator[TestModbusServer]:
    server = TestModbusServer(list(REGISTERS))
    server.start()
    yield server
    server.close()


def sensor(server: TestModbusServer, *registers: Register) -> ModbusSensor:
    return ModbusSensor(
        Modbus(name="plc", host="127.0.0.1", port=server.port, timeout_s=0.5, registers=registers or CONFIG),
        HandClock(),
    )


def test_every_type_is_read_in_one_request(server: TestModbusServer) -> None:
    async def poll() -> None:
        plc = sensor(server)
        samples = await plc.poll()
        assert {sample.metric.name: sample.value for sample in samples} == VALUES
        assert {s.metric.name for s in samples if s.quality is Quality.BAD} == {"broken"}
        assert server.requests == [(0, 12)]
        await plc.close()

    asyncio.run(poll())


def test_an_exception_is_named(server: TestModbusServer) -> None:
    server.refusal = ExcCodes.DEVICE_BUSY

    async def poll() -> None:
        plc = sensor(server)
        with pytest.raises(SensorRefused, match="DEVICE_BUSY") as refused:
            await plc.poll()
        assert [sample.quality for sample in refused.value.samples] == [Quality.BAD] * len(CONFIG)
        server.refusal = None
        assert (await plc.poll())[0].value == 42.5
        await plc.close()

    asyncio.run(poll())


def test_one_wrong_address_does_not_cost_its_neighbors(server: TestModbusServer) -> None:
    async def poll() -> None:
        plc = sensor(
            server, Register(metric="last", address=98, type="uint16"), Register(metric="no", address=99)
        )
        with pytest.raises(SensorRefused, match="ILLEGAL_ADDRESS"):
            await plc.poll()
        with pytest.raises(SensorRefused, match="ILLEGAL_ADDRESS for holding registers 99 to 100") as refused:
            await plc.poll()
        assert [(s.metric.name, s.value) for s in refused.value.samples] == [("last", 0.0), ("no", None)]
        await plc.close()

    asyncio.run(poll())


def test_silence_is_a_timeout_and_passes(server: TestModbusServer) -> None:
    async def poll() -> None:
        plc = sensor(server)
        assert len(await plc.poll()) == len(CONFIG)
        server.silence(silent=True)
        began = asyncio.get_running_loop().time()
        with pytest.raises(SensorTimeout, match=f"127.0.0.1:{server.port}"):
            await plc.poll()
        assert asyncio.get_running_loop().time() - began < 1.5
        server.silence(silent=False)
        assert (await plc.poll())[0].value == 42.5
        await plc.close()

    asyncio.run(poll())


def test_a_server_that_goes_and_comes_back(server: TestModbusServer) -> None:
    async def poll() -> None:
        plc = sensor(server)
        assert len(await plc.poll()) == len(CONFIG)
        await asyncio.to_thread(server.stop)
        with pytest.raises(SensorTimeout):
            await plc.poll()
        await asyncio.to_thread(server.start)
        assert (await plc.poll())[0].value == 42.5
        await plc.close()

    asyncio.run(poll())


registers = st.builds(
    Register,
    metric=st.just("m"),
    address=st.integers(0, 400),
    type=st.sampled_from(sorted(REGISTER_WORDS)),
    table=st.sampled_from(["holding", "input"]),
)


@given(st.lists(registers, min_size=1, max_size=40))
def test_a_plan_reads_every_register_once_and_never_too_many(wanted: list[Register]) -> None:
    blocks = plan(wanted)
    assert sorted(id(register) for block in blocks for register in block.registers) == sorted(map(id, wanted))
    for block in blocks:
        assert 1 <= block.count <= MAX_WORDS
        for register in block.registers:
            assert block.table == register.table
            assert block.start <= register.address
            assert register.address + REGISTER_WORDS[register.type] <= block.start + block.count
