"""Nothing that was promised is lost between a sensor and the server's acknowledgement."""

import time
from collections.abc import Callable
from pathlib import Path

from fleet_protocol.messages import Gap, Mark, Stream, Telemetry
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import TestAuthority
from tests.support.broker import SERVICE, TestBroker
from tests.support.consumer import Consumer, consuming
from tests.support.waiting import wait_until

StartAgent = Callable[..., AgentProcess]


def no_hole_and_in_order(consumer: Consumer, device: str) -> None:
    """Every number of every epoch arrived, none was a gap, and the values are in sequence."""
    for key in consumer.keys(device, Stream.TELEMETRY):
        assert consumer.mark(key) == max(consumer.numbers[key])
    assert not any(isinstance(batch, Gap) for batch in consumer.content_of(device))


def test_a_recording_arrives_whole_and_leaves_the_spool_on_acknowledgement(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-01", broker.port, replay_section(recording(tmp_path / "flow.csv", 100)))
    wait_until(lambda: len(consumer.values("gw-01")) == 100, "all readings arrive")
    agent.delivered()
    assert consumer.values("gw-01") == [float(value) for value in range(100)]
    first = consumer.content_of("gw-01")[0]
    assert isinstance(first, Telemetry)
    assert [(metric.name, metric.unit) for metric in first.metrics] == [("flow", "l/s")]
    assert all(sent.startswith(f"{first.base.boot_id}:") for sent in consumer.sent)
    wait_until(lambda: "sensor.ended" in consumer.codes("gw-01"), "the end is told")
    assert consumer.status["gw-01"].online
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 2.0
    wait_until(lambda: not consumer.status["gw-01"].online, "the stop is told")
    assert len(consumer.keys("gw-01", Stream.TELEMETRY)) == 1


def test_an_agent_that_starts_without_a_broker_delivers_when_there_is_one(
    tmp_path: Path, authority: TestAuthority, start_agent: StartAgent
) -> None:
    broker = TestBroker(tmp_path / "broker", authority)
    agent = start_agent("gw-02", broker.port, replay_section(recording(tmp_path / "flow.csv", 60)))
    wait_until(lambda: "link.down" in agent.log, "the missing broker is told")
    wait_until(lambda: "sensor.ended" in agent.log, "the sensor is read all the same")
    broker.start()
    with consuming(broker.port, authority.issue(SERVICE)) as consumer:
        agent.delivered()
        assert consumer.values("gw-02") == [float(value) for value in range(60)]
        wait_until(lambda: "link.down" not in consumer.codes("gw-02"), "the link is well again")
    broker.stop()


def test_a_killed_broker_costs_nothing(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-03", broker.port, replay_section(recording(tmp_path / "flow.csv", 400)))
    for share in (50, 200):
        wait_until(lambda share=share: len(consumer.values("gw-03")) > share, "readings arrive")
        broker.kill()
        broker.start()
    wait_until(lambda: len(consumer.values("gw-03")) == 400, "all readings arrive", 60)
    assert consumer.values("gw-03") == [float(value) for value in range(400)]
    no_hole_and_in_order(consumer, "gw-03")
    assert agent.log.count("connected to the broker") >= 3


def test_a_killed_agent_delivers_what_it_had_committed(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-04", broker.port, replay_section(recording(tmp_path / "flow.csv", 200)))
    consumer.withhold = True
    for number in range(1, 4):
        wait_until(
            lambda number=number: len(consumer.keys("gw-04", Stream.TELEMETRY)) == number,
            "a new epoch is heard",
        )
        wait_until(
            lambda: len(consumer.content[consumer.keys("gw-04", Stream.TELEMETRY)[-1]]) > 3,
            "batches of it arrive",
        )
        agent.kill()
        wait_until(lambda: not consumer.status["gw-04"].online, "the last will is heard")
        agent.start()
    wait_until(lambda: len(consumer.keys("gw-04", Stream.TELEMETRY)) == 4, "the last epoch is heard")
    consumer.acknowledge_all()
    agent.delivered()
    no_hole_and_in_order(consumer, "gw-04")
    assert len(consumer.keys("gw-04", Stream.TELEMETRY)) == 4
    assert consumer.duplicates > 0


def test_a_power_cut_loses_nothing_acknowledged_and_reuses_no_number(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    """The spool's files go back to what an earlier sync had left; the server knows more than they."""
    agent = start_agent("gw-05", broker.port, replay_section(recording(tmp_path / "flow.csv", 10_000)))
    consumer.withhold = True
    wait_until(lambda: len(consumer.content_of("gw-05")) > 5, "batches arrive")
    agent.kill()
    log = agent.data / "spool.db-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    before = {(batch.epoch, batch.seq): batch for batch in consumer.content_of("gw-05")}
    consumer.acknowledge_all()
    agent.start()
    wait_until(lambda: len(consumer.keys("gw-05", Stream.TELEMETRY)) == 2, "a new epoch is heard")
    wait_until(lambda: len(consumer.content_of("gw-05")) > len(before) + 3, "and its batches")
    for batch in consumer.content_of("gw-05"):
        known = before.get((batch.epoch, batch.seq))
        assert known is None or known == batch
    no_hole_and_in_order(consumer, "gw-05")
    agent.stop()
    assert "ack.refused" not in agent.log


def test_a_lying_acknowledgement_deletes_nothing(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    consumer.withhold = True
    agent = start_agent("gw-06", broker.port, replay_section(recording(tmp_path / "flow.csv", 30)))
    wait_until(lambda: len(consumer.values("gw-06")) == 30, "all readings arrive")
    (key,) = consumer.keys("gw-06", Stream.TELEMETRY)
    consumer.acknowledge("gw-06", [Mark(key[1], Stream.TELEMETRY, 10**6)])
    wait_until(lambda: "ack.refused" in consumer.codes("gw-06"), "the lie is told")
    assert consumer.reported["gw-06"].spool.batches == consumer.mark(key)
    consumer.acknowledge_all()
    agent.delivered()
    wait_until(lambda: "ack.refused" not in consumer.codes("gw-06"), "and forgotten")
