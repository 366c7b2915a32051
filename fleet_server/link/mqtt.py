"""The server's connection to the broker; the only place that knows how MQTT is spoken.

A sans-I/O codec (``mqtt5``) on a socket of our own, because an acknowledgement here means "it is
in the database" and has to wait for the reader's word, hundreds at a time
(docs/adr/0003-server-mqtt-client.md). The session outlives connection and process: what was not
acknowledged comes again. One thread, no callbacks: the reader asks for what has come; only
:meth:`Subscriber.wake` may be called from another one.
"""

import contextlib
import logging
import random
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import mqtt5

from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.errors import BrokerError

RECEIVE_MAX: Final = 5000
"""Messages that may wait for our acknowledgement; several transactions full."""

SESSION_EXPIRY_S: Final = 7 * 86_400
"""How long the broker keeps the session of a server that is away."""

KEEPALIVE_S: Final = 30
"""A broker that is silent for one and a half times as long is gone."""

CONNECT_S: Final = 10.0
"""How long a connection may take to be made, each step of it."""

BACKOFF_S: Final = (0.2, 15.0)
"""First and longest wait between attempts; jittered, so that services do not come back in step."""

MAX_WAITING: Final = 20_000
"""Own messages kept while the broker is slow; beyond it the oldest go: a device asks again."""

_RECORD: Final = 1 << 14
_CHUNK: Final = 1 << 17
_PUBLISH: Final = 3
_HAS_ID: Final = 0b0110
_LONGEST_LENGTH: Final = 4
_QOS1: Final = mqtt5.QoS.AT_LEAST_ONCE
_GRANTED: Final = (
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
)

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and who we are: the certificate's name is also the session's."""

    host: str
    port: int
    name: str
    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to listen to; ``retained`` asks for what the broker keeps, once for a new session."""

    topics: str
    retained: bool = False


class Arrival(NamedTuple):
    """A message as it came; ``sent`` is the user property of that name.

    ``expiry_s`` is how much longer its sender thinks it of use, where it says so.
    ``token`` acknowledges it and is 0 where there is nothing to acknowledge. ``is_broken`` tells of
    a packet that cannot be parsed: the payload is then the whole packet.
    """

    topic: str
    payload: bytes
    retain: bool
    received_ms: int
    token: int = 0
    content_type: str | None = None
    sent: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    is_broken: bool = False


class _Own(NamedTuple):
    """A message of our own, on its way to the broker."""

    topic: str
    payload: bytes
    expiry_s: int
    retain: bool
    correlation: bytes | None

    def packet(self, number: int, *, is_again: bool) -> bytes:
        """Its bytes under the packet identifier ``number``."""
        return mqtt5.PublishPacket(
            self.topic,
            self.payload,
            qos=_QOS1,
            retain=self.retain,
            packet_id=number,
            duplicate=is_again,
            message_expiry_interval=self.expiry_s,
            correlation_data=self.correlation,
        ).write()


class Subscriber:
    """A persistent session that is read in batches. Not shared between threads."""

    def __init__(self, broker: Broker, subscriptions: Sequence[Subscription]) -> None:
        self._broker: Final = broker
        self._subscriptions: Final = subscriptions
        self._socket: socket.socket | None = None
        self._is_subscribed = False
        self._connection = 0
        self._attempts = 0
        self._next_attempt = 0.0
        self._woken, self._waker = socket.socketpair()
        self._is_woken = False
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._inbox: deque[Arrival] = deque()
        self._buffer = memoryview(bytearray(_RECORD))
        self._received = bytearray()
        self._outgoing = bytearray()
        self._waiting: deque[_Own] = deque()
        self._in_flight: dict[int, _Own] = {}
        self._may_fly = 0
        self._last_id = 0
        self._heard = self._pinged = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the session is up and subscribed: what is published from now on will come."""
        return self._is_subscribed

    @property
    def connections(self) -> int:
        """How many connections there were so far; one more means that the broker may be another one."""
        return self._connection

    @property
    def unconfirmed(self) -> int:
        """How many own messages the broker has not taken yet."""
        return len(self._waiting) + len(self._in_flight)

    def collect(self, limit: int, wait_s: float, linger_s: float) -> list[Arrival]:
        """Up to ``limit`` messages: waits ``wait_s`` for the first, ``linger_s`` for more to join it.

        :meth:`wake` ends the wait at once.
        """
        if self._outgoing or self._waiting:
            self.tend(0.0)
        deadline = time.monotonic() + wait_s
        lingers = False
        while (before := len(self._inbox)) < limit:
            if before and not lingers:
                lingers, deadline = True, time.monotonic() + linger_s
            left = 0.0 if self._is_woken else max(0.0, deadline - time.monotonic())
            self.tend(left)
            # Whatever ends the wait, what has come already comes along: large transactions are cheap ones.
            if not left and len(self._inbox) == before:
                break
        self._is_woken = False
        return [self._inbox.popleft() for _number in range(min(limit, len(self._inbox)))]

    def tend(self, wait_s: float) -> None:
        """Keep the connection alive, or bring it back, for at most ``wait_s``; messages queue meanwhile."""
        if self._socket is None:
            self._reconnect(wait_s)
            return
        try:
            self._exchange(self._socket, wait_s)
        except (OSError, BrokerError) as error:
            self._lose(error)

    def wake(self) -> None:
        """End the wait of :meth:`collect`, from another thread."""
        with contextlib.suppress(OSError):  # as many as fit are as good as one, and closed is awake
            self._waker.send(b"!")

    def acknowledge(self, arrivals: Iterable[Arrival]) -> None:
        """Tell the broker that it need not send these again. Those of an earlier connection it will."""
        if self._socket is None:
            return
        oldest = self._connection << 16
        acknowledged = [
            mqtt5.PubAckPacket(one.token & 0xFFFF).write() for one in arrivals if one.token > oldest
        ]
        self._outgoing += b"".join(acknowledged)

    def publish(
        self,
        topic: str,
        payload: bytes,
        expiry_s: int,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
    ) -> None:
        """Send a message at least once, in order, as soon as the broker can take it.

        ``correlation`` tells the receiver of an answer what it answers.
        """
        self._waiting.append(_Own(topic, payload, expiry_s, retain, correlation))
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()

    def close(self) -> None:
        """Say goodbye; the session stays."""
        if self._socket is not None:
            self._fill()
            self._outgoing += mqtt5.DisconnectPacket().write()
            with contextlib.suppress(OSError):
                self._send(self._socket)
            self._drop()
        self._woken.close()
        self._waker.close()

    def _exchange(self, connection: socket.socket, wait_s: float) -> None:
        """Write what waits, read what came, and mind the silence."""
        self._fill()
        self._send(connection)
        now = time.monotonic()
        if now - self._heard > 1.5 * KEEPALIVE_S:
            raise BrokerError(_("the broker is silent"))
        if now - self._pinged > KEEPALIVE_S / 2:
            self._pinged = now
            self._outgoing += mqtt5.PingReqPacket().write()
            self._send(connection)
        if not _has_pending(connection):
            poll = select.poll()
            poll.register(connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
            poll.register(self._woken, select.POLLIN)
            poll.poll(min(wait_s, KEEPALIVE_S / 4) * 1000)
            with contextlib.suppress(BlockingIOError):
                self._is_woken |= bool(self._woken.recv(1024))
        self._read(connection)

    def _read(self, connection: socket.socket) -> None:
        """Take in what is there. Under TLS each message is a record, and each record a call."""
        before = len(self._received)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while len(self._received) - before < _CHUNK:
                size = connection.recv_into(self._buffer)
                if not size:
                    raise ConnectionError(_("the broker closed the connection"))
                self._received += self._buffer[:size]
        if len(self._received) > before:
            self._heard = time.monotonic()
            self._parse()

    def _parse(self) -> None:
        received_ms = wall_ms()
        done = 0
        with memoryview(self._received) as view:
            while done < len(view):
                with view[done:] as rest:
                    try:
                        packet, size = mqtt5.read(rest)
                    except BaseException as error:
                        if not _is_of_codec(error):
                            raise
                        size = self._salvage(rest, received_ms, error)
                    else:
                        self._take(packet, received_ms)
                if not size:
                    break
                done += size
        del self._received[:done]

    def _take(self, packet: mqtt5.Packet, received_ms: int) -> None:
        match packet:
            case mqtt5.PublishPacket(packet_id=None) if len(self._inbox) >= MAX_WAITING:
                pass  # what needs no acknowledgement has no other bound
            case mqtt5.PublishPacket():
                self._inbox.append(self._arrival(packet, received_ms))
            case mqtt5.PubAckPacket():
                self._in_flight.pop(packet.packet_id, None)
            case mqtt5.DisconnectPacket():
                raise BrokerError(_("the broker says goodbye: {code}").format(code=packet.reason_code.name))
            case mqtt5.SubAckPacket():
                refused = [code.name for code in packet.reason_codes if code not in _GRANTED]
                if refused:
                    raise BrokerError(_("the broker refuses a subscription: {code}").format(code=refused[0]))
                self._is_subscribed = True

    def _arrival(self, packet: mqtt5.PublishPacket, received_ms: int) -> Arrival:
        token = 0 if packet.packet_id is None else self._connection << 16 | packet.packet_id
        properties = packet.user_properties
        return Arrival(
            packet.topic,
            packet.payload,
            packet.retain,
            received_ms,
            token,
            packet.content_type,
            dict(properties).get("sent") if properties else None,
            packet.response_topic,
            packet.correlation_data,
            packet.message_expiry_interval,
        )

    def _salvage(self, rest: memoryview, received_ms: int, error: BaseException) -> int:
        """Make an arrival of a PUBLISH that is against the rules; it would come again for ever.

        Its size; 0 where the packet is only not complete yet.
        """
        frame = _frame(bytes(rest[:5]))
        if frame is None or frame[1] > len(rest):
            return 0
        start, end = frame
        packet = bytes(rest[:end])
        if packet[0] >> 4 != _PUBLISH:
            raise BrokerError(_("the broker speaks no MQTT: {reason}").format(reason=error))
        after = start + 2 + int.from_bytes(packet[start : start + 2])
        topic = packet[start + 2 : after].decode(errors="replace")
        number = int.from_bytes(packet[after : after + 2]) if packet[0] & _HAS_ID else 0
        token = self._connection << 16 | number if number else 0
        self._inbox.append(Arrival(topic, packet, False, received_ms, token, is_broken=True))
        return end

    def _fill(self) -> None:
        """Move waiting messages out, as many as the broker lets be in flight."""
        while self._waiting and len(self._in_flight) < self._may_fly:
            own, number = self._waiting.popleft(), self._free_id()
            self._in_flight[number] = own
            self._outgoing += own.packet(number, is_again=False)

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._in_flight:
                return self._last_id

    def _send(self, connection: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._outgoing:
                sent = connection.send(self._outgoing)
                del self._outgoing[:sent]

    def _reconnect(self, wait_s: float) -> None:
        wait = self._next_attempt - time.monotonic()
        if wait > 0:
            time.sleep(min(wait, wait_s))
            return
        try:
            self._socket = self._connect()
        except (OSError, BrokerError, ValueError) as error:
            self._lose(error)
            return
        if self._attempts:
            log.warning(_("connected to the broker again"))
        self._attempts = 0

    def _connect(self) -> socket.socket:
        broker = self._broker
        context = ssl.create_default_context(cafile=str(broker.ca))
        context.load_cert_chain(broker.certificate, broker.key)
        with contextlib.ExitStack() as undo:
            raw = undo.enter_context(socket.create_connection((broker.host, broker.port), CONNECT_S))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = undo.enter_context(context.wrap_socket(raw, server_hostname=broker.host))
            self._open_session(connection)
            connection.setblocking(False)
            undo.pop_all()
        return connection

    def _open_session(self, connection: socket.socket) -> None:
        hello = mqtt5.ConnectPacket(
            self._broker.name,
            clean_start=False,
            keep_alive=KEEPALIVE_S,
            session_expiry_interval=SESSION_EXPIRY_S,
            receive_max=RECEIVE_MAX,
        )
        answer = _introduce(connection, hello, self._received)
        self._connection += 1
        self._may_fly = answer.receive_max
        self._heard = self._pinged = time.monotonic()
        self._subscribe()
        for number, own in self._in_flight.items():
            self._outgoing += own.packet(number, is_again=True)

    def _subscribe(self) -> None:
        if not self._subscriptions:  # it only speaks; MQTT knows no empty subscription
            self._is_subscribed = True
            return
        filters = [
            mqtt5.TopicFilter(
                one.topics,
                max_qos=_QOS1,
                no_local=True,  # what we say ourselves is nothing that somebody tells us
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
                if one.retained
                else mqtt5.RetainHandling.SEND_NEVER,
            )
            for one in self._subscriptions
        ]
        self._outgoing += mqtt5.SubscribePacket(self._free_id(), filters).write()

    def _lose(self, error: Exception) -> None:
        self._drop()
        first, longest = BACKOFF_S
        wait = random.uniform(first, min(longest, first * 2 ** min(self._attempts + 1, 16)))  # noqa: S311 - no secret
        self._next_attempt = time.monotonic() + wait
        level = logging.WARNING if self._attempts == 0 else logging.DEBUG
        log.log(level, _("no connection to the broker: {reason}").format(reason=error))
        self._attempts += 1

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None
        self._is_subscribed = False
        self._inbox.clear()
        self._received.clear()
        self._outgoing.clear()


def seize(host: str, port: int, name: str, context: ssl.SSLContext) -> None:
    """Take the session ``name`` over from whoever has it, throw it away, and leave.

    Raises:
        BrokerError: the broker refuses.
        OSError: it cannot be reached.
    """
    with (
        socket.create_connection((host, port), CONNECT_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        _introduce(connection, mqtt5.ConnectPacket(name, clean_start=True), bytearray())
        connection.sendall(mqtt5.DisconnectPacket().write())


def _introduce(
    connection: socket.socket, hello: mqtt5.ConnectPacket, received: bytearray
) -> mqtt5.ConnAckPacket:
    """Say who we are on a blocking socket; the broker's answer, where it is a good one."""
    connection.sendall(hello.write())
    answer = _read_one(connection, received)
    if isinstance(answer, mqtt5.ConnAckPacket) and answer.reason_code == 0:
        return answer
    reason = answer.reason_code.name if isinstance(answer, mqtt5.ConnAckPacket) else answer
    raise BrokerError(_("the broker refuses {name}: {reason}").format(name=hello.client_id, reason=reason))


def _read_one(connection: socket.socket, received: bytearray) -> mqtt5.Packet:
    """The next packet of a blocking socket; what follows it stays in ``received``."""
    while True:
        with contextlib.suppress(IndexError):
            packet, size = mqtt5.read(memoryview(bytes(received)))
            del received[:size]
            return packet
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(_("the broker closed the connection"))
        received += data


def _frame(head: bytes) -> tuple[int, int] | None:
    """Where the body of the packet that begins with ``head`` starts and ends; nothing if it is too short."""
    length = 0
    for place, byte in enumerate(head[1:], 1):
        length |= (byte & 0x7F) << 7 * (place - 1)
        if not byte & 0x80:
            return place + 1, place + 1 + length
    if len(head) > _LONGEST_LENGTH:
        raise BrokerError(_("the broker speaks no MQTT"))
    return None


def _is_of_codec(error: BaseException) -> bool:
    """Whether the codec says that it cannot read a packet. Over text that is no UTF-8 it panics."""
    return isinstance(error, (IndexError, ValueError)) or type(error).__module__ == "pyo3_runtime"


def _has_pending(connection: socket.socket) -> bool:
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
