"""``fleet-server serve``: starting, being killed in every part, and ending without a trace."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.messages import Ack, Mark, Stream
from fleet_protocol.topics import Channel, topic
from tests.support.batches import EPOCH
from tests.support.fleet_broker import Identity, connected
from tests.support.fleet_server import ServerProcess, add, batch, deliver
from tests.support.waiting import wait_until

CHILDREN = {"mosquitto", "ingest", "watch", "rollouts", "escalation", "api", "device"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that leave it running."""
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
    server.start()
    yield server
    server.end()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, not started yet."""
    server = ServerProcess(tmp_path / "data")
    yield server
    server.end()


def test_a_reading_comes_to_its_row_and_is_acknowledged(server: ServerProcess, tmp_path: Path) -> None:
    identity = add(server, "gw-read", tmp_path / "gw-read")
    ack = deliver(server, identity, batch(1))
    assert ack.marks == [Mark(EPOCH, Stream.TELEMETRY, 1)]
    found = server.get("/v1/devices/gw-read/readings", metric="pressure")["items"]
    assert [one["value"] for one in found] == [1000.0]
    assert server.get("/v1/devices/gw-read")["device"]["heard_ms"] is not None


def test_it_is_well_and_its_files_are_its_owners_alone(server: ServerProcess) -> None:
    assert server.codes() == set()
    exposed = [path for path in server.data.rglob("*") if path.stat().st_mode & 0o077 and path.is_file()]
    assert exposed == []


def test_a_retained_reading_is_refused_and_told(server: ServerProcess, tmp_path: Path) -> None:
    """The broker cannot refuse the flag; ingest does, or a stale reading would meet every restart."""
    identity = add(server, "gw-retains", tmp_path / "gw-retains")
    with connected(server.endpoints["mqtt_port"], identity) as device:
        device.publish(topic("gw-retains", Channel.TELEMETRY), batch(1), retain=True)
        codes = wait_until(lambda: server.get("/v1/devices/gw-retains")["device"]["health"])
    assert [item["code"] for item in codes] == ["message.refused"]
    assert "retained" in codes[0]["detail"]
    assert server.get("/v1/devices/gw-retains/readings")["items"] == []


def test_a_second_start_on_the_same_folder_is_refused(server: ServerProcess) -> None:
    assert server.process is not None
    second = ServerProcess(server.data)
    second.launch()
    complaint = second.complaint()
    assert second.process is not None
    assert second.process.returncode == 1
    assert f"runs on {server.data} already (process {server.process.pid})" in complaint
    assert server.codes() == set()


@pytest.mark.parametrize("name", sorted(CHILDREN))
def test_a_killed_child_is_started_again_and_does_its_work(
    server: ServerProcess, tmp_path: Path, name: str
) -> None:
    identity = add(server, f"gw-{name}", tmp_path / "gw")
    deliver(server, identity, batch(1))
    killed = server.children()[name]
    killed.send_signal(signal.SIGKILL)
    wait_until(lambda: server.children().get(name, killed).pid != killed.pid, f"{name} runs again")
    assert wait_until(lambda: redeliver(server, identity)).marks == [Mark(EPOCH, Stream.TELEMETRY, 2)]
    assert server.codes() == set()
    assert set(server.children()) == CHILDREN


def redeliver(server: ServerProcess, identity: Identity) -> Ack | None:
    """As an agent does: again, until the broker is back and the server acknowledges."""
    try:
        return deliver(server, identity, batch(2))
    except OSError:
        return None


def test_its_end_leaves_no_process_and_a_restart_keeps_everything(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    own_server.start()
    identity = add(own_server, "gw-01", tmp_path / "gw-01")
    deliver(own_server, identity, batch(1))
    kept = ("authority/authority.json", "authority/ca.pem", "api.token", "services/svc.ingest-1/cert.pem")
    before = own_server.endpoints, {name: (own_server.data / name).read_bytes() for name in kept}
    end(own_server, signal.SIGTERM)
    own_server.start()
    assert before == (own_server.endpoints, {name: (own_server.data / name).read_bytes() for name in kept})
    assert deliver(own_server, identity, batch(2)).marks == [Mark(EPOCH, Stream.TELEMETRY, 2)]
    end(own_server, signal.SIGINT)


def end(server: ServerProcess, number: signal.Signals) -> None:
    assert set(server.children()) == CHILDREN
    assert server.stop(number) == 0
    assert server.survivors() == []
    assert not (server.data / "endpoints.json").exists()


def test_its_violent_end_leaves_no_process(own_server: ServerProcess) -> None:
    own_server.start()
    assert set(own_server.children()) == CHILDREN
    own_server.stop(signal.SIGKILL)
    wait_until(lambda: not own_server.survivors(), "every child ends")


def test_a_start_that_is_interrupted_leaves_no_process_and_no_half_state(own_server: ServerProcess) -> None:
    own_server.launch()
    wait_until(lambda: own_server.children().get("mosquitto"), "the first child runs")
    assert own_server.stop(signal.SIGINT) == 0
    assert own_server.survivors() == []
    own_server.start()
    assert own_server.codes() == set()
