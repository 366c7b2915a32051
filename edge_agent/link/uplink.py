"""Session after session: connect, say who is there, send, receive; wait and try again.

Runs for as long as the agent does, with or without a broker.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

from edge_agent.backoff import FullJitter
from edge_agent.errors import LinkDown, LinkError, LinkRefused
from edge_agent.escalation.desk import Desk
from edge_agent.link.transport import Connection, Transport
from edge_agent.service.health import HealthBoard
from edge_agent.tasks import together
from edge_agent.telemetry.sender import Sender
from fleet_protocol.errors import MessageError
from fleet_protocol.messages import Ack, Message, decode
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel

_LOG: Final = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 1.0
_PATIENCE_S: Final = 0.2
_STABLE_S: Final = 30.0
"""A session that lasts this long is a good one: a refusal is forgotten, the next wait is short."""

_SUSPICIOUS: Final = 5
"""So many sessions in a row that began well and did not last are no accident."""


class Speaker(Protocol):
    """Who says what the agent is: its status and its report."""

    def status(self, *, online: bool) -> bytes:
        """The status now."""

    async def run(self, connection: Connection) -> None:
        """Report over ``connection`` until it breaks."""


class Uplink:
    """The loop over sessions.

    ``up_since_s`` and ``acknowledged_s`` say, on the event loop's clock, since when there is a session
    and when the server confirmed something last; none where there is none, or it never did.
    """

    up_since_s: float | None = None
    acknowledged_s: float | None = None

    def __init__(
        self,
        transport: Transport,
        sender: Sender,
        desk: Desk,
        speaker: Speaker,
        health: HealthBoard,
        reconnect_cap_s: float,
    ) -> None:
        self._transport = transport
        self._sender = sender
        self._desk = desk
        self._speaker = speaker
        self._health = health
        self._listeners: dict[Channel, Callable[[Message], None]] = {}
        self._hurried: Final = asyncio.Event()
        self._cut_short = 0
        self._backoff = FullJitter(min(_FIRST_WAIT_S, reconnect_cap_s), reconnect_cap_s)

    def listen(self, channel: Channel, hear: Callable[[Message], None]) -> None:
        """From the next session on, hand what comes on ``channel`` to ``hear``."""
        self._listeners[channel] = hear

    def hurry(self) -> None:
        """Try at once where there is no session: what it failed for may be over."""
        self._hurried.set()

    async def run(self) -> None:
        """Hold a session whenever there can be one."""
        while True:
            try:
                await self._session()
            except LinkError as error:
                self._tell(self._suspected(error))
            finally:
                self.up_since_s = None
            await self._pause(self._backoff.next_s())

    async def _pause(self, seconds: float) -> None:
        self._hurried.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _session(self) -> None:
        speaker = self._speaker
        will, farewell = speaker.status(online=False), lambda: speaker.status(online=False)
        async with self._transport.connect(will, farewell) as connection:
            for channel in (Channel.ACK, *self._listeners):
                await connection.subscribe(channel)
            await connection.publish(Channel.STATUS, speaker.status(online=True))
            self._cut_short += 1
            self.up_since_s = asyncio.get_running_loop().time()
            self._health.clear(LinkDown.code)
            _LOG.info(_("connected to the broker"))
            await together(
                {
                    "link.receive": lambda: self._receive(connection),
                    "link.acknowledge": self._sender.acknowledge,
                    "link.send": lambda: self._sender.run(connection),
                    "link.ask": lambda: self._desk.send(connection),
                    "link.report": lambda: speaker.run(connection),
                    "link.settle": self._settle,
                },
                _PATIENCE_S,
            )

    async def _settle(self) -> None:
        """Only a session that lasts is well: two clients with one identity keep taking over each other."""
        await asyncio.sleep(_STABLE_S)
        self._health.clear(LinkRefused.code)
        self._backoff.reset()
        self._cut_short = 0

    async def _receive(self, connection: Connection) -> None:
        async for message in connection.messages():
            try:
                content = decode(message.channel, message.payload, message.content_type)
            except MessageError as error:
                _LOG.warning(_("refused from the server: {reason}").format(reason=error))
                continue
            if isinstance(content, Ack):
                self.acknowledged_s = asyncio.get_running_loop().time()
                self._sender.hear(content)
            elif message.channel in self._listeners:
                self._listeners[message.channel](content)

    def _suspected(self, error: LinkError) -> LinkError:
        """Mosquitto 2.0 takes a session over without a word; that it keeps ending is all there is to see."""
        if self._cut_short < _SUSPICIOUS:
            return error
        return LinkRefused(
            _(
                "{count} sessions in a row ended at once ({reason}): look for another client with this "
                "device's identity"
            ).format(count=self._cut_short, reason=error)
        )

    def _tell(self, error: LinkError) -> None:
        if isinstance(error, LinkRefused):
            self._health.clear(LinkDown.code)
        self._health.raise_code(error.code, str(error))
