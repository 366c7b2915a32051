"""A server with an outside broker, and one with PostgreSQL: what is not its child, it watches."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fleet_protocol.messages import Mark, Stream
from fleet_protocol.topics import Channel, topic
from fleet_server.link.mosquitto import MAX_QUEUED_MESSAGES, find_mosquitto
from tests.support.batches import EPOCH
from tests.support.fleet_broker import Identity, connected
from tests.support.fleet_server import ServerProcess, add, batch, deliver
from tests.support.postgres import PostgresServer
from tests.support.waiting import free_port, wait_until

RECONNECT_S = 40.0
"""The longest wait between two attempts of a service, twice, and what a loaded machine adds."""


@contextmanager
def outside_broker(data: Path) -> Iterator[None]:
    """mosquitto with the files that the server made for it, but room for one queued message only."""
    text = (data / "broker" / "mosquitto.conf").read_text()
    assert f"max_queued_messages {MAX_QUEUED_MESSAGES}\n" in text
    text = text.replace(f"max_queued_messages {MAX_QUEUED_MESSAGES}\n", "max_queued_messages 1\n")
    narrow = data / "broker" / "narrow.conf"
    narrow.write_text(text + "sys_interval 1\n")
    with (data / "broker" / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen([find_mosquitto(), "-c", str(narrow)], stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_an_outside_broker_is_missed_found_and_seen_dropping(tmp_path: Path) -> None:
    port = free_port()
    server = ServerProcess(tmp_path / "data", "--mqtt-url", f"mqtts://localhost:{port}")
    try:
        server.start()
        children = {"ingest", "watch", "rollouts", "escalation", "guard", "api", "device"}
        assert set(server.children()) == children
        assert server.endpoints["mqtt_port"] == port
        wait_until(lambda: "broker.down" in server.codes(), "the broker is missed")
        with outside_broker(server.data):
            wait_until(lambda: not server.codes(), "watch and ingest find the broker", RECONNECT_S)
            identity = add(server, "gw-01", tmp_path / "gw-01")
            drown(server, identity)
            wait_until(lambda: "broker.dropping" in server.codes(), "dropping is seen")
    finally:
        server.end()


def drown(server: ServerProcess, identity: Identity) -> None:
    """Be a device that takes one message and never acknowledges it: most of what follows is dropped."""
    name = identity.name
    port = server.endpoints["mqtt_port"]
    with connected(port, identity, is_stuck=True) as device:
        device.subscribe(topic(name, Channel.ACK))
        for number in range(1, 6):
            device.publish(topic(name, Channel.TELEMETRY), batch(number))
            wait_until(partial(is_stored, server, name, number), f"batch {number} is stored")


def is_stored(server: ServerProcess, name: str, number: int) -> bool:
    streams = server.get(f"/v1/devices/{name}/streams")["items"]
    return [one["contiguous"] for one in streams] == [number]


def test_the_same_on_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.url(postgres.new_database())
    server = ServerProcess(tmp_path / "data", "--database-url", url)
    try:
        server.start()
        identity = add(server, "gw-01", tmp_path / "gw-01")
        assert deliver(server, identity, batch(1)).marks == [Mark(EPOCH, Stream.TELEMETRY, 1)]
        found = server.get("/v1/devices/gw-01/readings", metric="pressure")["items"]
        assert [one["value"] for one in found] == [1000.0]
        assert server.codes() == set()
        assert not (server.data / "fleet.db").exists()
        server.stop()
        # The URL is remembered: a start that forgets it does not begin an empty SQLite.
        again = ServerProcess(server.data)
        again.start()
        assert [one["id"] for one in again.get("/v1/devices")["items"]] == ["gw-01"]
        again.end()
    finally:
        server.end()
