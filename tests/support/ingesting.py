"""A broker, an ingest process, and devices that behave like agents."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Engine, select

from fleet_protocol.messages import Ack, Batch, Stream, decode, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.config import Settings, save_settings
from fleet_server.database.engine import open_engine
from fleet_server.database.models import metadata
from fleet_server.link.mosquitto import INGEST
from fleet_server.link.mqtt import Broker, Subscriber, Subscription
from tests.support.batches import register
from tests.support.fleet_broker import FleetBroker
from tests.support.waiting import wait_until

RESEND_S = 0.5
"""An agent waits longer; a test has more kills to see."""


class IngestSite:
    """mosquitto under the server's own configuration, and ``fleet-server ingest`` as a process."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.engine: Engine = open_engine(database_url)
        self.broker = FleetBroker(folder)
        save_settings(folder, Settings(database_url=database_url, mqtt_port=self.broker.config.mqtt_port))
        self.folder = folder
        self.devices: list[Device] = []
        self.ingest: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        began_ms = time.time_ns() // 1_000_000
        self.broker.start()
        self.start_ingest()
        wait_until(lambda: self.has_begun(began_ms), "ingest is subscribed")

    def has_begun(self, since_ms: int) -> bool:
        """Whether an ingest that was started since then has subscribed."""
        service = metadata.tables["service"]
        with self.engine.connect() as connection:
            began_ms = connection.scalar(select(service.c.started_ms).where(service.c.name == INGEST))
        return began_ms is not None and began_ms >= since_ms

    def start_ingest(self) -> None:
        with (self.folder / "ingest.log").open("ab") as log:
            self.ingest = subprocess.Popen(
                [sys.executable, "-m", "fleet_server", "ingest", "--data", str(self.folder)], stderr=log
            )

    def kill_ingest(self) -> None:
        assert self.ingest is not None
        assert self.ingest.poll() is None, f"ingest died by itself: {self.log}"
        self.ingest.kill()
        self.ingest.wait(10)

    def kill_broker(self) -> None:
        assert self.broker.process is not None
        self.broker.process.kill()
        self.broker.process.wait(10)

    def stop(self) -> None:
        for device in self.devices:
            device.link.close()
        if self.ingest is not None and self.ingest.poll() is None:
            self.ingest.send_signal(signal.SIGTERM)
            assert self.ingest.wait(20) in {0, -signal.SIGTERM}, self.log
        if self.broker.process is not None and self.broker.process.poll() is None:
            self.broker.stop()
        self.engine.dispose()

    @property
    def log(self) -> str:
        return (self.folder / "ingest.log").read_text()

    def device(self, name: str) -> "Device":
        register(self.engine, name)
        return self.stranger(name)

    def stranger(self, name: str) -> "Device":
        """With a certificate, but not registered."""
        identity = self.broker.device(name)
        port = self.broker.config.mqtt_port
        device = Device(Broker("localhost", port, name, identity.ca, identity.certificate, identity.key))
        self.devices.append(device)
        return device

    def batches(self) -> Counter[tuple[str, str, int]]:
        """How often each (epoch, stream, number) is stored, told by the rows themselves."""
        cursor, counted = metadata.tables["ingest_cursor"], Counter[tuple[str, str, int]]()
        reading, event = metadata.tables["reading"], metadata.tables["event"]
        with self.engine.connect() as connection:
            for table, key in ((reading, (reading.c.metric, reading.c.value)), (event, (event.c.text,))):
                statement = select(cursor.c.epoch, cursor.c.stream, table.c.seq, *key).join(
                    cursor, cursor.c.id == table.c.cursor
                )
                rows = Counter(map(tuple, connection.execute(statement)))
                for (epoch, stream, seq, *_key), times in rows.items():
                    counted[epoch, stream, seq] = max(times, counted[epoch, stream, seq])
        return counted


@contextmanager
def ingest_site(folder: Path, database_url: str) -> Iterator[IngestSite]:
    site = IngestSite(folder, database_url)
    try:
        site.start()
        yield site
    finally:
        site.stop()


class Device:
    """Keeps every batch until it is acknowledged and sends again from the mark, as an agent does."""

    def __init__(self, broker: Broker) -> None:
        self.name = broker.name
        self.link = Subscriber(broker, [Subscription(topic(broker.name, Channel.ACK))])
        self.kept: dict[tuple[str, Stream], dict[int, Batch]] = {}
        self.marks: dict[tuple[str, Stream], int] = {}
        self.sent: dict[tuple[str, Stream], int] = {}
        self.acknowledged: list[tuple[str, Stream, int]] = []
        self._progress = time.monotonic()

    def add(self, *batches: Batch) -> None:
        for batch in batches:
            stream = Stream.EVENT if type(batch).__name__ == "Events" else Stream.TELEMETRY
            self.kept.setdefault((batch.epoch, stream), {})[batch.seq] = batch

    def send(self, batches: Sequence[Batch], channel: Channel = Channel.TELEMETRY) -> None:
        for batch in batches:
            self.link.publish(topic(self.name, channel), encode(batch), 3600)

    def work(self, window: int = 50, wait_s: float = 0.005) -> None:
        """One round: take acknowledgements in, send what the window lets, start over where nothing moves."""
        for arrival in self._arrivals(wait_s):
            for mark in decode_ack(arrival.payload).marks:
                self._take_mark((mark.epoch, mark.stream), mark.seq)
        if time.monotonic() - self._progress > RESEND_S:
            self._progress = time.monotonic()
            self.sent = dict(self.marks)
        for flow, batches in self.kept.items():
            mark = self.marks.get(flow, 0)
            sent = max(self.sent.get(flow, 0), mark)
            due = [batches[seq] for seq in sorted(batches) if sent < seq <= mark + window]
            if due and self.link.is_connected:
                self.send(due, flow[1].channel)
                self.sent[flow] = due[-1].seq

    def work_until_acknowledged(self, deadline_s: float = 60.0) -> None:
        def is_done() -> bool:
            self.work()
            return self.is_done

        wait_until(is_done, f"{self.name}: all acknowledged", deadline_s)

    @property
    def is_done(self) -> bool:
        return all(self.marks.get(flow, 0) >= max(batches) for flow, batches in self.kept.items())

    def _take_mark(self, flow: tuple[str, Stream], seq: int) -> None:
        self.acknowledged.append((*flow, seq))
        if seq > self.marks.get(flow, 0):
            self.marks[flow] = seq
            self._progress = time.monotonic()

    def _arrivals(self, wait_s: float) -> list:
        arrivals = self.link.collect(100, wait_s, 0.0)
        self.link.acknowledge(arrivals)
        return arrivals


def decode_ack(payload: bytes) -> Ack:
    message = decode(Channel.ACK, payload)
    assert isinstance(message, Ack), msgspec.to_builtins(message)
    return message
