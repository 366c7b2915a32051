"""A broker, the rollouts process, and devices that take what they are assigned."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Self

from sqlalchemy import Engine, select

from fleet_protocol.messages import Hint, Status, decode, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.config import Settings, save_settings
from fleet_server.database.engine import open_engine
from fleet_server.database.models import metadata
from fleet_server.link.mosquitto import ROLLOUTS
from tests.support.fleet_broker import FleetBroker, Identity, MqttClient, connected
from tests.support.rollouts import reported, update
from tests.support.waiting import wait_until

ENDS = {"good": "committed", "bad": "rolled_back"}


class RolloutSite:
    """mosquitto under the server's own configuration, and ``fleet-server rollouts`` as a process."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.engine: Engine = open_engine(database_url)
        self.broker = FleetBroker(folder)
        save_settings(folder, Settings(database_url=database_url, mqtt_port=self.broker.port))
        self.process: subprocess.Popen[bytes] | None = None
        self._launched_ms = 0

    def start_loop(self) -> None:
        self._launched_ms = time.time_ns() // 1_000_000
        with (self.folder / "rollouts.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleet_server", "rollouts", "--data", str(self.folder)], stderr=log
            )

    def wait_for_beat(self) -> None:
        """Until the process that was started last has begun its work."""
        wait_until(lambda: self._started_ms() >= self._launched_ms, "the loop has begun")

    def kill_loop(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"it died by itself: {self.log}"
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0, self.log
        if self.broker.process is not None and self.broker.process.poll() is None:
            self.broker.stop()
        self.engine.dispose()

    @property
    def log(self) -> str:
        return (self.folder / "rollouts.log").read_text()

    def _started_ms(self) -> int:
        service = metadata.tables["service"]
        with self.engine.connect() as connection:
            return connection.scalar(select(service.c.started_ms).where(service.c.name == ROLLOUTS)) or 0


@contextmanager
def rollout_site(folder: Path, database_url: str) -> Iterator[RolloutSite]:
    site = RolloutSite(folder, database_url)
    try:
        site.broker.start()
        yield site
    finally:
        site.stop()


def next_hint(device: MqttClient, timeout: float = 20.0) -> Hint:
    hint = decode(Channel.HINT, device.received.get(timeout=timeout).payload)
    assert isinstance(hint, Hint)
    return hint


class FakeDevice:
    """Takes what it is assigned as soon as a hint comes, and reports it over the real broker.

    ``temper``: ``good`` commits, ``bad`` rolls back, ``stuck`` never gets beyond its test.
    """

    def __init__(self, identity: Identity, port: int, wish: Callable[[str], int], temper: str) -> None:
        self.identity, self.temper = identity, temper
        self.hints: list[int] = []
        self.installed = 1
        self._port, self._wish = port, wish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name=identity.name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        name = self.identity.name
        with connected(self._port, self.identity) as link:
            online = Status(online=True, boot_id="0" * 16, epoch="e" * 16, agent="argan-0.1.0", wall_ms=1)
            link.publish(topic(name, Channel.STATUS), encode(online), retain=True)
            self._say(link, 1, "committed")
            link.subscribe(topic(name, Channel.HINT))
            while not self._stop.is_set():
                try:
                    hint = next_hint(link, 0.1)
                except Empty:
                    continue
                self.hints.append(hint.version)
                self._update(link, self._wish(name))

    def _update(self, link: MqttClient, release: int) -> None:
        if release <= self.installed:
            return
        self._say(link, release, "downloading")
        self._say(link, release, "testing")
        if self.temper != "stuck":
            self.installed = release if self.temper == "good" else self.installed
            self._say(link, release, ENDS[self.temper])

    def _say(self, link: MqttClient, release: int, state: str) -> None:
        told = reported(update(release, state, installed=self.installed))
        link.publish(topic(self.identity.name, Channel.REPORTED), encode(told), retain=True)
