"""A small server side for tests of the agent: receives, keeps in memory, acknowledges contiguously."""

import contextlib
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleet_protocol.messages import (
    Ack,
    Batch,
    Events,
    Gap,
    Hint,
    Mark,
    Reported,
    Status,
    Stream,
    Telemetry,
    decode,
    encode,
)
from fleet_protocol.topics import Channel, parse, topic
from tests.support.authority import Credentials

Key = tuple[str, str, Stream]
"""Device, epoch, stream."""


class Consumer:
    """What a server knows: every number received, the contiguous mark, last status and report."""

    def __init__(self, port: int, credentials: Credentials) -> None:
        self.withhold = False
        self.batches: list[tuple[str, Batch]] = []
        self.sent: list[str] = []
        self.numbers: dict[Key, set[int]] = defaultdict(set)
        self.content: dict[Key, dict[int, Batch]] = defaultdict(dict)
        self.duplicates = 0
        self.status: dict[str, Status] = {}
        self.reported: dict[str, Reported] = {}
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._port = port
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=credentials.name, protocol=mqtt.MQTTv5
        )
        context = ssl.create_default_context(cafile=credentials.ca)
        context.load_cert_chain(credentials.certificate, credentials.key)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.on_socket_open = _without_delay
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_arguments: self._ready.set()
        self._client.on_message = self._on_message

    def start(self) -> None:
        self._client.connect_async("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(20)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def mark(self, key: Key) -> int:
        """The highest contiguous number."""
        with self._lock:
            return self._mark(key)

    def keys(self, device: str, stream: Stream) -> list[Key]:
        """The epochs of a device, in the order in which they were heard of."""
        with self._lock:
            return [key for key in self.numbers if key[0] == device and key[2] is stream]

    def content_of(self, device: str, stream: Stream = Stream.TELEMETRY) -> list[Batch]:
        """Each batch once, by epoch and number."""
        with self._lock:
            keys = [key for key in self.content if key[0] == device and key[2] is stream]
            return [self.content[key][seq] for key in keys for seq in sorted(self.content[key])]

    def values(self, device: str) -> list[float | None]:
        """The values of all readings of a device, each batch once."""
        return [
            reading.value
            for batch in self.content_of(device)
            if isinstance(batch, Telemetry)
            for reading in batch.readings
        ]

    def codes(self, device: str) -> set[str]:
        """The health codes that the device reports now."""
        report = self.reported.get(device)
        return {each.code for each in report.health} if report else set()

    def acknowledge(self, device: str, marks: list[Mark]) -> None:
        """Say ``marks`` whatever was received."""
        self._client.publish(topic(device, Channel.ACK), encode(Ack(marks=marks)), qos=1)

    def acknowledge_all(self) -> None:
        """End withholding and say every mark."""
        self.withhold = False
        with self._lock:
            marks = {key: self._mark(key) for key in self.numbers}
        for (device, epoch, stream), mark in marks.items():
            self.acknowledge(device, [Mark(epoch, stream, mark)])

    def hint(self, device: str, version: int) -> None:
        """Say that the director has something for ``device``."""
        self._client.publish(topic(device, Channel.HINT), encode(Hint(version=version)), qos=1, retain=True)

    def _mark(self, key: Key) -> int:
        mark = 0
        while mark + 1 in self.numbers[key]:
            mark += 1
        return mark

    def _on_connect(self, client: mqtt.Client, *_arguments: object) -> None:
        client.subscribe("argan/v1/+/up/#", qos=1)

    def _on_message(self, client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if not message.payload:
            return
        device, channel = parse(message.topic)
        content = decode(channel, message.payload)
        if isinstance(content, Status):
            self.status[device] = content
        elif isinstance(content, Reported):
            self.reported[device] = content
        elif isinstance(content, Telemetry | Events | Gap):
            stream = Stream.TELEMETRY if channel is Channel.TELEMETRY else Stream.EVENT
            self._take(device, stream, content)
            properties = dict(getattr(message.properties, "UserProperty", []))
            self.sent.append(properties.get("sent", ""))

    def _take(self, device: str, stream: Stream, batch: Batch) -> None:
        key = (device, batch.epoch, stream)
        with self._lock:
            self.batches.append((device, batch))
            if batch.seq in self.numbers[key] and batch.seq in self.content[key]:
                self.duplicates += 1
            self.numbers[key].update(range(batch.first, batch.seq + 1))
            self.content[key][batch.seq] = batch
            mark = self._mark(key)
        if not self.withhold:
            self.acknowledge(device, [Mark(batch.epoch, stream, mark)])


def _without_delay(_client: mqtt.Client, _userdata: object, connection: Any) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextlib.contextmanager
def consuming(port: int, credentials: Credentials) -> Iterator[Consumer]:
    """A consumer that runs within the block."""
    consumer = Consumer(port, credentials)
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.stop()
