"""The local socket of a real agent: with and without a broker, while it works, and after a kill."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.rpc import talking
from tests.support.waiting import free_port, wait_until

Start = Callable[..., AgentProcess]


def _is_there(agent: AgentProcess) -> bool:
    try:
        with talking(agent.data) as talk:
            return bool(talk.result("status")["values"])
    except (OSError, AssertionError):
        return False


def test_an_agent_with_a_link_says_how_it_is(
    start_agent: Start, broker: TestBroker, consumer: Consumer, tmp_path: Path
) -> None:
    agent = start_agent("gw-01", broker.port, replay_section(recording(tmp_path / "r.csv", 100_000)))
    wait_until(lambda: _is_there(agent), "the socket answers")
    with talking(agent.data) as talk:
        wait_until(lambda: talk.result("status")["link"]["acknowledged_age_ms"] is not None, "acknowledged")
        status = talk.result("status")
    assert (status["device"], status["profile"]) == ("gw-01", "simulated")
    assert status["link"]["up"]
    assert status["link"]["up_ms"] >= 0
    (flow,) = status["values"]
    assert (flow["metric"], flow["unit"], flow["quality"]) == ("flow", "l/s", 0)
    assert flow["age_ms"] < 60_000
    assert status["history"]["flow"][-1] == flow["value"]


def test_at_the_cabinet_without_a_broker(start_agent: Start, tmp_path: Path) -> None:
    section = replay_section(recording(tmp_path / "r.csv", 100_000), interval_s=0.05)
    agent = start_agent("gw-01", free_port(), section)
    wait_until(lambda: _is_there(agent), "the socket answers")
    with talking(agent.data) as talk:
        assert not talk.result("status")["link"]["up"]
        before = talk.result("status")["history"]["flow"]
        read = talk.result("sensor.read", name="recording")["items"]
        assert read[0]["value"] > before[-1]
        assert read[0]["value"] in talk.result("status")["history"]["flow"]
        assert "there are: recording" in talk.ask("sensor.read", name="none")["error"]["message"]
        assert "'name'" in talk.ask("sensor.read")["error"]["message"]
        assert "whole path" in talk.ask("bundle", path="b.tar.gz")["error"]["message"]
        written = talk.result("bundle", path=str(tmp_path / "b.tar.gz"))
    _holds_no_secret(tmp_path / "b.tar.gz", agent, written["files"])


def _holds_no_secret(path: Path, agent: AgentProcess, names: list[str]) -> None:
    with tarfile.open(path) as archive:
        found = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert "link.down" in found["log.txt"].decode()
    assert json.loads(found["status.json"])["device"] == "gw-01"
    key = Path(json.loads(found["config.json"])["broker"]["key"]).read_text().splitlines()[1]
    assert key.encode() not in b"".join(found.values())


def test_after_a_kill_the_socket_is_there_again(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent("gw-01", free_port(), replay_section(recording(tmp_path / "r.csv", 100_000)))
    wait_until(lambda: _is_there(agent), "the socket answers")
    agent.kill()
    assert (agent.data / "agent.sock").is_socket()
    agent.start()
    wait_until(lambda: _is_there(agent), "the socket answers again")
    with talking(agent.data) as _stays_open:
        assert agent.stop() == 0
    assert not (agent.data / "agent.sock").exists()
    assert "Traceback" not in agent.log


def test_a_sensor_that_waits_for_its_row_holds_nobody(start_agent: Start, tmp_path: Path) -> None:
    """As recorded, the next row is due in an hour; the agent answers meanwhile."""
    path = tmp_path / "slow.csv"
    path.write_text("t,flow\n0,1\n3600,2\n7200,3\n")
    section = f"""
[[sensors]]
kind = "replay"
name = "slow"
path = "{path}"
time_column = "t"
[sensors.columns]
flow = "flow"
"""
    agent = start_agent("gw-01", free_port(), section)
    wait_until(lambda: _is_there(agent), "the socket answers")
    with talking(agent.data) as waits, talking(agent.data) as talk:
        waits.send(b'{"jsonrpc":"2.0","id":1,"method":"sensor.read","params":{"name":"slow"}}\n')
        assert talk.result("status")["values"][0]["value"] == 1.0
        assert "did not answer within 10 s" in waits.line()["error"]["message"]
    assert agent.stop() == 0
