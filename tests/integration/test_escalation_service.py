"""The escalation service in a real server, asked by devices that follow the protocol, and by others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.topics import Channel, topic
from tests.support.fleet_broker import Identity, MqttClient, connected
from tests.support.fleet_server import ServerProcess, add
from tests.support.waiting import wait_until

pytest.importorskip("openvino")

from tests.support.central import write_central

GATEWAYS = ("gw-a", "gw-b", "gw-c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("central")
    write_central(folder, GATEWAYS, metric="pressure0", unit="m")
    return folder


class Fleet:
    """A server and its devices."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._identities: dict[str, Identity] = {}

    def identity(self, name: str) -> Identity:
        if name not in self._identities:
            self._identities[name] = add(self.server, name, self._folder / name)
        return self._identities[name]

    @contextmanager
    def device(self, name: str) -> Iterator[MqttClient]:
        """A device that listens to its answers."""
        with connected(self.server.endpoints["mqtt_port"], self.identity(name)) as device:
            assert device.subscribe(topic(name, Channel.ANSWER)) == "accepted"
            yield device

    def escalations(self, device: str) -> list[dict[str, Any]]:
        items = self.server.get("/v1/escalations", limit=1000)["items"]
        return [item for item in items if item["device"] == device]

    def refusal(self, device: str) -> str:
        """Why the device's last message was refused."""

        def told() -> str:
            page = self.server.get(f"/v1/devices/{device}")["device"]["health"]
            return next((item["detail"] for item in page if item["code"] == "message.refused"), "")

        return wait_until(told, "the refusal is told")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Fleet]:
    server = ServerProcess(folder / "data", *options)
    server.start()
    try:
        yield Fleet(server, folder)
    finally:
        server.end()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("server"), "--central-model", str(folder)) as fleet:
        yield fleet


def test_it_answers_with_the_whole_networks_windows(fleet: Fleet) -> None:
    """The asker's own window comes along; what the neighbor measured is in the database."""
