"""The MQTT session; the only module that knows aiomqtt (and the paho types in its signatures).

MQTT 5 over mutual TLS, TCP_NODELAY, a last will, a session that the broker keeps for an hour.
``connect`` gives one session or says why there is none: ``LinkDown`` for what may pass by itself,
``LinkRefused`` for what a person has to mend. Trying again is the caller's.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.clock import Clock
from edge_agent.config import Broker
from edge_agent.errors import LinkDown, LinkError, LinkRefused
from edge_agent.identity.identity import Identity
from edge_agent.link.witness import reporting_to
from fleet_protocol.errors import TopicError
from fleet_protocol.messages import MAX_PAYLOAD
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, parse, topic

_LOG: Final = logging.getLogger(__name__)
_MQTT_LOG: Final = logging.getLogger("edge_agent.mqtt")
_MQTT_LOG.setLevel(logging.CRITICAL)  # what it reports as text is reported here as an error

SESSION_EXPIRY_S: Final = 3600
"""How long the broker keeps what is sent down while the device is away."""

_MAX_PACKET: Final = MAX_PAYLOAD + 4096
"""Bytes; the broker does not deliver what is longer. The difference is for topic and properties."""

_UNDER_WAY: Final = 100
"""Publishes without the broker's PUBACK; below any broker's receive maximum that is in use."""

_QUEUED_IN: Final = 1000
"""Messages received and not yet taken; a lost acknowledgement is repeated by the server."""

_CONNECT_TIMEOUT_S: Final = 10.0
_PUBACK_TIMEOUT_S: Final = 30.0
_GOODBYE_TIMEOUT_S: Final = 0.5

_REFUSALS: Final = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 0x98})
"""MQTT 5 reason codes that will not pass by themselves: protocol version, client id, credentials,
not authorized, banned, authentication method, taken over, administrative action."""

_TAKEN_OVER: Final = 0x8E


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the server."""

    channel: Channel
    payload: bytes
    content_type: str | None


class Connection:
    """One session with the broker. Every method raises ``LinkError`` once it is broken."""

    def __init__(self, client: aiomqtt.Client, device: str, boot_id: str) -> None:
        self._client = client
        self._device = device
        self._boot_id = boot_id
        self._slots = asyncio.Semaphore(_UNDER_WAY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: LinkError | None = None

    async def subscribe(self, channel: Channel) -> None:
        """Receive ``channel`` of this device."""
        try:
            codes = await self._client.subscribe(topic(self._device, channel), qos=channel.delivery.qos)
        except aiomqtt.MqttError as error:
            raise _link_error(error) from error
        code = codes[0]
        if not isinstance(code, int) and code.is_failure:
            raise LinkRefused(
                _("subscription to {channel} refused: {reason}").format(channel=channel.value, reason=code)
            )

    async def publish(self, channel: Channel, payload: bytes) -> None:
        """Publish one message and wait until the broker has it."""
        delivery = channel.delivery
        try:
            await self._client.publish(
                topic(self._device, channel),
                payload,
                qos=delivery.qos,
                retain=delivery.retained,
                timeout=_PUBACK_TIMEOUT_S,
            )
        except aiomqtt.MqttError as error:
            raise _link_error(error) from error

    async def ask(self, payload: bytes, request: str, expiry_s: int) -> None:
        """Publish the question whose id is ``request`` and wait until the broker has it.

        Nobody gets it after ``expiry_s`` s; its answer is to come to this device's own channel.
        """
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
        properties.ResponseTopic = topic(self._device, Channel.ANSWER)
        properties.CorrelationData = bytes.fromhex(request)
        try:
            await self._client.publish(
                topic(self._device, Channel.REQUEST),
                payload,
                qos=Channel.REQUEST.delivery.qos,
                properties=properties,
                timeout=_PUBACK_TIMEOUT_S,
            )
        except aiomqtt.MqttError as error:
            raise _link_error(error) from error

    async def send(self, channel: Channel, payload: bytes, mono_ms: int) -> None:
        """Hand over one batch; waits only while too many are without the broker's PUBACK.

        The monotonic time of sending goes along, so that the server can tell the age of readings
        from a clock that it does not believe.
        """
        await self._slots.acquire()
        if self._failure is not None:
            raise self._failure
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = ("sent", f"{self._boot_id}:{mono_ms}")
        task = asyncio.create_task(self._deliver(channel, payload, properties), name="link.deliver")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def messages(self) -> AsyncIterator[Received]:
        """What the server sends, until the session breaks."""
        try:
            async for message in self._client.messages:
                content_type = getattr(message.properties, "ContentType", None)
                try:
                    _device, channel = parse(message.topic.value)
                except TopicError as error:
                    _LOG.warning("%s", error)
                    continue
                yield Received(channel, message.payload, content_type)
        except aiomqtt.MqttError as error:
            raise _link_error(error) from error

    async def close(self) -> None:
        """Give up what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, channel: Channel, payload: bytes, properties: Properties) -> None:
        try:
            await self._client.publish(
                topic(self._device, channel),
                payload,
                qos=channel.delivery.qos,
                properties=properties,
                timeout=_PUBACK_TIMEOUT_S,
            )
        except aiomqtt.MqttError as error:
            self._failure = _link_error(error)
        finally:
            self._slots.release()


class Transport:
    """Opens sessions with one broker as one device."""

    def __init__(self, identity: Identity, broker: Broker, clock: Clock) -> None:
        self._identity = identity
        self._broker = broker
        self._clock = clock

    @contextlib.asynccontextmanager
    async def connect(self, will: bytes, farewell: Callable[[], bytes]) -> AsyncIterator[Connection]:
        """One session; ``will`` and ``farewell`` are the status for an unforeseen and a planned end.

        Raises:
            LinkDown: unreachable, or broken later.
            LinkRefused: one of the two sides did not accept the other.
        """
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client = self._client(will, failure)
        await _enter(client, failure)
        connection = Connection(client, self._identity.device, self._clock.boot_id)
        try:
            yield connection
        except asyncio.CancelledError:
            await _say(connection, farewell())
            raise
        finally:
            await connection.close()
            await _leave(client)

    def _client(self, will: bytes, failure: "asyncio.Future[None]") -> aiomqtt.Client:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = _MAX_PACKET
        status = Channel.STATUS
        context = self._identity.tls_context(self._clock.state())
        context.sslsocket_class = reporting_to(failure)
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=self._identity.device,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            keepalive=self._broker.keepalive_s,
            timeout=_CONNECT_TIMEOUT_S,
            properties=properties,
            will=aiomqtt.Will(
                topic(self._identity.device, status), will, status.delivery.qos, status.delivery.retained
            ),
            tls_context=context,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            max_inflight_messages=_UNDER_WAY,
            max_queued_incoming_messages=_QUEUED_IN,
            logger=_MQTT_LOG,
        )
        client.pending_calls_threshold = 2 * _UNDER_WAY
        return client


async def _enter(client: aiomqtt.Client, failure: "asyncio.Future[None]") -> None:
    """Connect, or raise the true reason as soon as it is known."""
    entering = asyncio.ensure_future(client.__aenter__())
    either: set[asyncio.Future[Any]] = {entering, failure}
    for each in either:
        each.add_done_callback(_heed)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            cause = failure.exception() or ConnectionResetError()
            raise _link_error(cause) from cause
        await entering
    except aiomqtt.MqttError as error:
        # aiomqtt keeps only the text of what paho raised; the exception itself is its context.
        raise _link_error(error.__context__ if isinstance(error.__context__, OSError) else error) from error
    finally:
        if not entering.done():
            entering.cancel()
        failure.cancel()


def _heed(outcome: "asyncio.Future[Any]") -> None:
    """Read how it ended: an attempt may fail just when it is given up, and asyncio would complain."""
    if not outcome.cancelled():
        outcome.exception()


async def _leave(client: aiomqtt.Client) -> None:
    """Disconnect, but never wait long for a broker that is gone."""
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError, OSError):
        async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
            await client.__aexit__(None, None, None)


async def _say(connection: Connection, farewell: bytes) -> None:
    """A planned end sends no last will, so the status is said in so many words."""
    with contextlib.suppress(LinkError, TimeoutError):
        async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
            await connection.publish(Channel.STATUS, farewell)


def _link_error(error: BaseException) -> LinkError:
    """Which of the two kinds ``error`` is, in words."""
    if isinstance(error, aiomqtt.MqttError) and isinstance(error.__cause__, aiomqtt.MqttCodeError):
        error = error.__cause__
    reason = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return LinkRefused(
            _("the broker's certificate is not accepted: {reason}").format(reason=error.verify_message)
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return LinkRefused(
            _("the broker does not accept this device's certificate: {reason}").format(reason=error.reason)
        )
    if isinstance(error, aiomqtt.MqttCodeError):
        code = error.rc if isinstance(error.rc, int) or error.rc is None else error.rc.value
        if code == _TAKEN_OVER:
            return LinkRefused(_("another client came with this device's identity"))
        if code in _REFUSALS and not isinstance(error.rc, int):
            return LinkRefused(_("the broker says: {reason}").format(reason=error.rc))
    return LinkDown(reason)
