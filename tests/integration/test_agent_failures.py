"""A whole agent under bad conditions: it runs on, says what is wrong, and loses nothing it need not."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pymodbus.constants import ExcCodes

from edge_agent.agent import Agent
from edge_agent.clock import BUILD_MS
from edge_agent.config import load
from edge_agent.identity.identity import load_identity
from edge_agent.telemetry.sender import Limits
from fleet_protocol.messages import ClockState, Events, Quality, Stream, Telemetry
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.disk import fill
from tests.support.drafts import HandClock
from tests.support.modbus import TestModbusServer
from tests.support.waiting import wait_until

StartAgent = Callable[..., AgentProcess]

CORE_PSS_MIB = 50
"""The promise for an agent with sensors and no model."""


def modbus_section(port: int) -> str:
    return f"""\
[spool]
flush_interval_s = 0.05

[[sensors]]
kind = "modbus"
name = "plc"
host = "127.0.0.1"
port = {port}
interval_s = 0.05
timeout_s = 0.3
[[sensors.registers]]
metric = "level"
unit = "m"
address = 0
type = "uint16"
scale = 0.01
"""


@pytest.fixture
def plc() -> Iterator[TestModbusServer]:
    server = TestModbusServer([1234])
    server.start()
    yield server
    server.close()


async def alongside(agent: Agent, what: Callable[[], None]) -> None:
    """Run ``agent`` in this process, with a clock of the test's, while ``what`` runs in a thread."""
    running = asyncio.ensure_future(agent.run())
    try:
        await asyncio.to_thread(what)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def in_process(process: AgentProcess, clock: HandClock, limits: Limits | None = None) -> Agent:
    config = load(process.config)
    return Agent(config, load_identity(config.device, config.broker), clock, limits)


def test_a_sensor_that_fails_is_told_and_comes_back(
    broker: TestBroker, consumer: Consumer, start_agent: StartAgent, plc: TestModbusServer
) -> None:
    agent = start_agent("gw-31", broker.port, modbus_section(plc.port))
    wait_until(lambda: 12.34 in consumer.values("gw-31"), "a good value")
    plc.refusal = ExcCodes.ILLEGAL_ADDRESS
    wait_until(lambda: "sensor.refused" in consumer.codes("gw-31"), "the exception is told")
    assert "ILLEGAL_ADDRESS" in consumer.reported["gw-31"].health[0].detail
    plc.refusal = None
    wait_until(lambda: not consumer.codes("gw-31"), "and is over")
    plc.silence(silent=True)
    wait_until(lambda: consumer.codes("gw-31") == {"sensor.timeout"}, "the silence is told")
    plc.silence(silent=False)
    plc.stop()
    plc.registers[0] = 4321
    plc.start()
    wait_until(lambda: 43.21 in consumer.values("gw-31"), "good values again")
    wait_until(lambda: not consumer.codes("gw-31"), "and is over")
    readings = [
        reading
        for batch in consumer.content_of("gw-31")
        if isinstance(batch, Telemetry)
        for reading in batch.readings
    ]
    assert {(reading.value is None, reading.quality) for reading in readings} == {
        (False, Quality.GOOD),
        (True, Quality.BAD),
    }
    assert psutil.Process(agent.process.pid).memory_full_info().pss < CORE_PSS_MIB * 2**20  # type: ignore[union-attr]
    agent.stop()


def test_a_stop_is_quick_while_a_sensor_refuses_connections(
    broker: TestBroker, start_agent: StartAgent, plc: TestModbusServer
) -> None:
    plc.stop()
    agent = start_agent(
        "gw-42", broker.port, modbus_section(plc.port).replace("\ninterval_s = 0.05", "\ninterval_s = 0.01")
    )
    for tried in range(1, 4):
        wait_until(
            lambda tried=tried: agent.log.count("Sensor does not answer") == tried, "the sensor is tried"
        )
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 2.5
        agent.start()


def test_a_withheld_acknowledgement_is_told_and_the_data_sent_again(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 20))
    process = start_agent("gw-32", broker.port, section, run=False)
    agent = in_process(process, HandClock(), Limits(ack_timeout_s=0.3))
    consumer.withhold = True

    def scenario() -> None:
        wait_until(lambda: "link.unacknowledged" in consumer.codes("gw-32"), "the silence is told")
        wait_until(lambda: consumer.duplicates > 0, "the data is sent again")
        wait_until(lambda: len(consumer.values("gw-32")) == 20, "all readings arrive")
        consumer.acknowledge_all()
        process.delivered()
        wait_until(lambda: "link.unacknowledged" not in consumer.codes("gw-32"), "all is well")

    asyncio.run(alongside(agent, scenario))
    assert consumer.values("gw-32") == [float(value) for value in range(20)]


@pytest.mark.parametrize("wall_ms", [4_000, 4_070_908_800_000], ids=["1970", "2099"])
def test_a_clock_that_cannot_be_believed_is_told_until_it_is_set(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent, wall_ms: int
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 5), repeat=True)
    process = start_agent("gw-33", broker.port, section, run=False)
    clock = HandClock(wall_ms=wall_ms)

    def scenario() -> None:
        wait_until(lambda: "clock.untrusted" in consumer.codes("gw-33"), "the clock is told")
        assert consumer.reported["gw-33"].clock is ClockState.UNTRUSTED
        clock.wall = BUILD_MS + 1_000_000
        wait_until(lambda: "clock.untrusted" not in consumer.codes("gw-33"), "and is over")
        wait_until(lambda: consumer.content_of("gw-33", Stream.EVENT), "the jump is an event")

    asyncio.run(alongside(in_process(process, clock), scenario))
    states = [batch.base.clock for batch in consumer.content_of("gw-33") if isinstance(batch, Telemetry)]
    assert {states[0], states[-1]} == {ClockState.UNTRUSTED, ClockState.TRUSTED}
    (jump,) = consumer.content_of("gw-33", Stream.EVENT)
    assert isinstance(jump, Events)
    assert jump.events[0].name == "clock_jump"
    assert jump.events[0].values["jump_ms"] == pytest.approx(BUILD_MS + 1_000_000 - wall_ms, abs=10)


def test_a_corrupt_spool_is_set_aside_and_the_agent_runs(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 30))
    agent = start_agent("gw-34", broker.port, section, run=False)
    agent.data.mkdir()
    (agent.data / "spool.db").write_bytes(b"this was a spool once" * 1000)
    agent.start()
    wait_until(lambda: len(consumer.values("gw-34")) == 30, "all readings arrive")
    wait_until(lambda: "spool.quarantined" in consumer.codes("gw-34"), "the corruption is told")
    assert len(list(agent.data.glob("spool.db.quarantined-*"))) == 1
    agent.stop()
    agent.start()
    wait_until(lambda: len(consumer.keys("gw-34", Stream.TELEMETRY)) == 2, "it starts again")
    wait_until(lambda: "spool.quarantined" in consumer.codes("gw-34"), "and still tells it")


def test_a_full_disk_is_told_survived_and_accounted_for(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent, small_disk: Path
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 100_000), interval_s=0.001)
    agent = start_agent("gw-35", broker.port, section, run=False)
    agent.config.write_text(agent.config.read_text().replace('data = "data"', f'data = "{small_disk}"'))
    agent.data = small_disk
    consumer.withhold = True
    agent.start()
    wait_until(lambda: consumer.values("gw-35"), "readings arrive")
    filler = small_disk / "filler"
    fill(filler)
    wait_until(lambda: "spool.disk_full" in consumer.codes("gw-35"), "the full disk is told")
    filler.unlink()
    wait_until(lambda: "spool.disk_full" not in consumer.codes("gw-35"), "and is over")
    assert agent.stop() == 0
    consumer.acknowledge_all()
    (key,) = consumer.keys("gw-35", Stream.TELEMETRY)
    gaps = [batch for batch in consumer.content_of("gw-35") if not isinstance(batch, Telemetry)]
    assert [gap.reason for gap in gaps if not isinstance(gap, Events)] == ["disk full"]
    # Stored or told as lost: together they are the recording up to its last row, each once.
    assert consumer.mark(key) == max(consumer.numbers[key])
    last = consumer.values("gw-35")[-1]
    lost = sum(gap.records for gap in gaps if not isinstance(gap, Events))
    assert len(consumer.values("gw-35")) + lost == int(last or 0) + 1


def test_a_missing_model_is_told_and_readings_flow(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 30), repeat=True)
    section += '\n[[models]]\nfolder = "no-such-model"\n'
    agent = start_agent("gw-36", broker.port, section)
    wait_until(lambda: "model.refused" in consumer.codes("gw-36"), "the missing model is told")
    wait_until(lambda: len(consumer.values("gw-36")) > 30, "readings flow")
    assert agent.stop() == 0


def test_two_agents_on_one_folder(tmp_path: Path, broker: TestBroker, start_agent: StartAgent) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 30))
    agent = start_agent("gw-37", broker.port, section)
    wait_until(lambda: "connected to the broker" in agent.log, "the first one runs")
    second = edge_agent("run", "--config", str(agent.config))
    assert second.returncode == 6
    assert "another agent runs on" in second.stderr


def test_a_data_folder_that_cannot_be_made_is_told(
    tmp_path: Path, broker: TestBroker, start_agent: StartAgent
) -> None:
    section = replay_section(recording(tmp_path / "flow.csv", 30))
    agent = start_agent("gw-38", broker.port, section, run=False)
    agent.data.parent.mkdir(parents=True, exist_ok=True)
    agent.data.write_text("a file where the folder should be")
    second = edge_agent("run", "--config", str(agent.config))
    assert second.returncode == 3
    assert "give the agent a writable 'data' folder" in second.stderr
    assert "Traceback" not in second.stderr


def edge_agent(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestCheck:
    def test_nothing_is_wrong(self, tmp_path: Path, start_agent: StartAgent) -> None:
        section = replay_section(recording(tmp_path / "flow.csv", 3))
        agent = start_agent("gw-38", 1, section, run=False)
        result = edge_agent("check", "--config", str(agent.config))
        assert (result.returncode, result.stdout) == (0, "Nothing is wrong.\n")

    def test_everything_that_is_wrong_is_said_at_once(self, tmp_path: Path, start_agent: StartAgent) -> None:
        section = replay_section(tmp_path / "none.csv") + '\n[[models]]\nfolder = "none"\n'
        agent = start_agent("gw-39", 1, section, run=False)
        key = next(agent.config.parent.parent.parent.glob("**/gw-39/key.pem"), None)
        agent.config.write_text(agent.config.read_text().replace('device = "gw-39"', 'device = "gw-40"'))
        result = edge_agent("check", "--config", str(agent.config))
        assert result.returncode == 4
        assert "is for gw-39, not for gw-40" in result.stdout
        assert "correct 'path'" in result.stdout
        assert "manifest.json" in result.stdout
        assert key is None or "PRIVATE" not in result.stdout

    def test_a_key_that_others_can_read(self, tmp_path: Path, start_agent: StartAgent) -> None:
        agent = start_agent("gw-41", 1, replay_section(recording(tmp_path / "flow.csv", 3)), run=False)
        load(agent.config).broker.key.chmod(0o644)
        result = edge_agent("check", "--config", str(agent.config))
        assert result.returncode == 4
        assert "chmod 600" in result.stdout

    def test_a_configuration_that_does_not_parse(self, tmp_path: Path) -> None:
        file = tmp_path / "agent.toml"
        file.write_text("device = ")
        result = edge_agent("run", "--config", str(file))
        assert result.returncode == 3
        assert str(file) in result.stderr
        assert "Traceback" not in result.stderr

    def test_wrong_usage_and_version(self) -> None:
        assert edge_agent("run").returncode == 2
        assert edge_agent("--version").stdout.startswith("argan-")
