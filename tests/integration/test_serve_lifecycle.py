"""``fleet-server serve``: starting, being killed in every part, and ending without a trace."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.messages import Ack, Mark, Stream, decode, encode
from fleet_protocol.topics import Channel, topic
from tests.support.batches import EPOCH, base, telemetry
from tests.support.fleet_broker import Identity, MqttClient, connected
from tests.support.fleet_server import ServerProcess, fleet
from tests.support.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data")
    server.start()
    yield server
    server.end()


def add(server: ServerProcess, name: str, folder: Path) -> Identity:
    done = fleet("device", "add", name, "--out", folder, "--data", server.data)
    assert done.returncode == 0, done.stderr
    return Identity(name, folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


def batch(number: int) -> bytes:
    """One reading of now, whose value tells its batch."""
    return encode(telemetry(number, at=base(time.time_ns() // 1_000_000), readings=1))


def deliver(server: ServerProcess, identity: Identity, batch: bytes) -> Ack:
    """Publish one batch and wait for the application's acknowledgement."""
    with connected(server.endpoints["mqtt_port"], identity) as device:
        return deliver_by(device, identity.name, batch)


def deliver_by(device: MqttClient, name: str, batch: bytes) -> Ack:
    device.subscribe(topic(name, Channel.ACK))
    device.publish(topic(name, Channel.TELEMETRY), batch)
    ack = decode(Channel.ACK, device.received.get(timeout=20).payload)
    assert isinstance(ack, Ack)
    return ack


def test_a_reading_comes_to_its_row_and_is_acknowledged(server: ServerProcess, tmp_path: Path) -> None:
    identity = add(server, "gw-01", tmp_path / "gw-01")
    ack = deliver(server, identity, batch(1))
    assert ack.marks == [Mark(EPOCH, Stream.TELEMETRY, 1)]
    found = server.get("/v1/devices/gw-01/readings", metric="pressure")["items"]
    assert [one["value"] for one in found] == [1000.0]
    assert server.get("/v1/devices/gw-01")["device"]["heard_ms"] is not None


def test_it_is_well_and_its_files_are_its_owners_alone(server: ServerProcess) -> None:
    assert server.codes() == set()
    exposed = [path for path in server.data.rglob("*") if path.stat().st_mode & 0o077 and path.is_file()]
    assert exposed == []


def test_a_retained_reading_is_refused_and_told(server: ServerProcess, tmp_path: Path) -> None:
    """The broker cannot refuse the flag; ingest does, or a stale reading would meet every restart."""
    identity = add(server, "gw-01", tmp_path / "gw-01")
    with connected(server.endpoints["mqtt_port"], identity) as device:
        device.publish(topic("gw-01", Channel.TELEMETRY), batch(1), retain=True)
        codes = wait_until(lambda: server.get("/v1/devices/gw-01")["device"]["health"])
    assert [item["code"] for item in codes] == ["message.refused"]
    assert "retained" in codes[0]["detail"]
    assert server.get("/v1/devices/gw-01/readings")["items"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked_and_leaves_no_process(server: ServerProcess, number: signal.Signals) -> None:
    assert set(server.children()) == {"mosquitto", "ingest", "watch", "api"}
    assert server.stop(number) == 0
    assert server.survivors() == []
    assert not (server.data / "endpoints.json").exists()


def test_its_violent_end_leaves_no_process(server: ServerProcess) -> None:
    assert len(server.children()) == 4
    server.stop(signal.SIGKILL)
    wait_until(lambda: not server.survivors(), "every child ends")


def test_a_start_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    server.launch()
    wait_until(lambda: server.children().get("mosquitto"), "the first child runs")
    assert server.stop(signal.SIGINT) == 0
    assert server.survivors() == []
    server.start()
    assert server.codes() == set()
    server.end()


def test_a_second_start_on_the_same_folder_is_refused(server: ServerProcess) -> None:
    assert server.process is not None
    second = ServerProcess(server.data)
    second.launch()
    complaint = second.complaint()
    assert second.process is not None
    assert second.process.returncode == 1
    assert f"runs on {server.data} already (process {server.process.pid})" in complaint
    assert server.codes() == set()


def test_a_restart_keeps_ports_authority_token_and_data(server: ServerProcess, tmp_path: Path) -> None:
    identity = add(server, "gw-01", tmp_path / "gw-01")
    deliver(server, identity, batch(1))
    kept = ("authority/ca.key", "authority/ca.pem", "api.token", "services/svc.ingest-1/cert.pem")
    before = server.endpoints, {name: (server.data / name).read_bytes() for name in kept}
    server.stop()
    server.start()
    assert before == (server.endpoints, {name: (server.data / name).read_bytes() for name in kept})
    assert deliver(server, identity, batch(2)).marks == [Mark(EPOCH, Stream.TELEMETRY, 2)]


@pytest.mark.parametrize("name", ["mosquitto", "ingest", "watch", "api"])
def test_a_killed_child_is_started_again_and_does_its_work(
    server: ServerProcess, tmp_path: Path, name: str
) -> None:
    identity = add(server, "gw-01", tmp_path / "gw-01")
    deliver(server, identity, batch(1))
    killed = server.children()[name]
    killed.send_signal(signal.SIGKILL)
    again = wait_until(lambda: server.children().get(name), f"{name} runs again")
    assert again.pid != killed.pid
    assert wait_until(lambda: redeliver(server, identity)).marks == [Mark(EPOCH, Stream.TELEMETRY, 2)]
    assert server.codes() == set()
    assert len(server.children()) == 4


def redeliver(server: ServerProcess, identity: Identity) -> Ack | None:
    """As an agent does: again, until the broker is back and the server acknowledges."""
    try:
        return deliver(server, identity, batch(2))
    except OSError:
        return None
