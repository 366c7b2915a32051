"""Devices that publish as fast as a broker takes it: packets made beforehand, many in flight.

The load must never be what limits, so nothing is encoded while the clock runs: every packet lies
ready, and a device only moves a window over them by counting the broker's PUBACKs.
"""

import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import mqtt5

from fleet_protocol.messages import (
    Ack,
    ClockState,
    Metric,
    Reading,
    Telemetry,
    TimeBase,
    decode,
    encode,
)
from fleet_protocol.topics import Channel, topic
from tests.support.fleet_broker import FleetBroker, Identity

WINDOW: Final = 500
"""Messages of one device that wait for the broker's PUBACK; below the broker's own limit of 1000."""

BURST: Final = 64
"""Packets handed to the socket at once."""

READINGS: Final = 20
"""In one message, as the goal is set."""

_INTERVAL_MS: Final = 1000
_BOOT: Final = "000000000000b001"


@dataclass
class Load:
    """One device's messages and how far they are; ``acknowledged`` is the server's mark."""

    packets: list[bytes]
    link: ssl.SSLSocket
    sent: int = 0
    taken: int = 0
    acknowledged: int = 0
    outgoing: bytes = b""
    incoming: bytearray = field(default_factory=bytearray)

    @property
    def is_taken(self) -> bool:
        """Whether the broker has everything."""
        return self.taken >= len(self.packets)

    @property
    def has_work(self) -> bool:
        """Whether there is something to send that may be sent."""
        return bool(self.outgoing) or self.sent < min(len(self.packets), self.taken + WINDOW)

    def send(self) -> None:
        """Hand on as much as the socket takes."""
        if not self.outgoing:
            end = min(len(self.packets), self.taken + WINDOW, self.sent + BURST)
            self.outgoing = b"".join(self.packets[self.sent : end])
            self.sent = end
        with suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            self.outgoing = self.outgoing[self.link.send(self.outgoing) :]

    def receive(self) -> None:
        """Count what came back."""
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            while data := self.link.recv(65536):
                self.incoming += data
        done = 0
        with memoryview(self.incoming) as view, suppress(IndexError):
            while done < len(view):
                packet, size = mqtt5.read(view[done:])
                done += size
                if isinstance(packet, mqtt5.PubAckPacket):
                    self.taken += 1
                elif isinstance(packet, mqtt5.PublishPacket):
                    self._acknowledge(packet)
        del self.incoming[:done]

    def _acknowledge(self, packet: mqtt5.PublishPacket) -> None:
        message = decode(Channel.ACK, packet.payload)
        if isinstance(message, Ack):
            self.acknowledged = max(self.acknowledged, *(mark.seq for mark in message.marks))


def messages(device: str, epoch: str, count: int) -> list[bytes]:
    """PUBLISH packets at QoS 1, each with a batch of :data:`READINGS` readings."""
    now_ms = time.time_ns() // 1_000_000
    definitions = [Metric(number, f"metric_{number}", "bar") for number in range(READINGS)]
    packets = []
    for seq in range(1, count + 1):
        wall_ms = now_ms - (count - seq) * _INTERVAL_MS
        base = TimeBase(_BOOT, seq * _INTERVAL_MS, wall_ms, ClockState.TRUSTED)
        readings = [Reading(number, number * 40, seq + number / 7) for number in range(READINGS)]
        payload = encode(Telemetry(epoch, seq, base, definitions if seq == 1 else [], readings, []))
        number = (seq - 1) % 65535 + 1
        packet = mqtt5.PublishPacket(
            topic(device, Channel.TELEMETRY), payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number
        )
        packets.append(packet.write())
    return packets


def connect(broker: FleetBroker, identity: Identity, packets: list[bytes]) -> Load:
    """A device's connection, listening for the server's acknowledgements."""
    raw = socket.create_connection(("127.0.0.1", broker.config.mqtt_port))
    link = identity.context().wrap_socket(raw, server_hostname="localhost")
    marks = mqtt5.TopicFilter(topic(identity.name, Channel.ACK), max_qos=mqtt5.QoS.AT_MOST_ONCE)
    link.sendall(mqtt5.ConnectPacket(identity.name, clean_start=True).write())
    link.recv(1024)
    link.sendall(mqtt5.SubscribePacket(1, [marks]).write())
    link.recv(1024)
    link.setblocking(False)
    return Load(packets, link)


def publish_all(loads: list[Load], until: float, *, acknowledged: bool) -> None:
    """Publish everything; with ``acknowledged`` go on until the server has it all.

    Raises:
        TimeoutError: it was not done at ``until`` (monotonic seconds).
    """

    def is_done(load: Load) -> bool:
        return load.is_taken and (not acknowledged or load.acknowledged >= len(load.packets))

    while not all(map(is_done, loads)):
        writers = [load for load in loads if load.has_work]
        by_link = {load.link: load for load in loads}
        readable, writable, _broken = select.select(by_link, [load.link for load in writers], [], 1.0)
        for link in readable:
            by_link[link].receive()
        for link in writable:
            by_link[link].send()
        if time.monotonic() > until:
            raise TimeoutError("not all messages came through")
