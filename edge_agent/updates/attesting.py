"""Reports this device's versions, signed: after each look and each end of an update, or as a receipt.

MQTT has no part in it: a broken broker does not make the server blind, and what the broker, or whoever stole
its keys, says of a device can be held against the device's own word.
"""

import asyncio
import logging
from typing import Final, Protocol

import msgspec

from edge_agent.backoff import FullJitter
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.errors import IdentityError, ServerRefused, ServerUnreachable, UpdateBroken
from edge_agent.identity.device_server import DeviceServer
from edge_agent.identity.identity import serial_of
from edge_agent.identity.proof import ask_nonce
from edge_agent.identity.renewing import require_url
from edge_agent.identity.signing import sign
from edge_agent.link.https import tls_context
from edge_agent.updates import marks
from edge_agent.updates.executor import Executor
from edge_agent.updates.marks import Marks
from edge_agent.updates.statement import Records, statement
from fleet_protocol.errors import VersionError
from fleet_protocol.messages import ClockState, UpdateReport
from fleet_protocol.texts import _
from fleet_protocol.versions import CONTENT_TYPE, REPORT_PATH, TYPE, VersionReport, encode

_LOG: Final = logging.getLogger(__name__)

_SETTLE_S: Final = 0.5
"""Several things end together; they are reported together."""

_LEAST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 900.0
"""Between two attempts; the next look brings another."""

_NOBODYS: Final = "0" * 16
"""Stands in a report until the server's nonce is there."""


class Reporting(Protocol):
    """What is reported on."""

    @property
    def news(self) -> asyncio.Event:
        """Set when there is something to report."""

    @property
    def executor(self) -> Executor:
        """What carries updates out; raises UpdateBroken before it is open."""

    def reports(self) -> list[UpdateReport]:
        """Where the last update of every artifact stands."""


class Attestation:
    """The task that sends signed version reports."""

    def __init__(self, config: Config, clock: Clock, updates: Reporting) -> None:
        self._config: Final = config
        self._clock: Final = clock
        self._updates: Final = updates
        self._backoff: Final = FullJitter(_LEAST_PAUSE_S, _LONGEST_PAUSE_S)

    async def run(self) -> None:
        """Report whenever there is something to report, until it has arrived."""
        news = self._updates.news
        while True:
            await news.wait()
            await asyncio.sleep(_SETTLE_S)
            news.clear()
            if await self._report():
                self._backoff.reset()
                continue
            await asyncio.sleep(_LEAST_PAUSE_S + self._backoff.next_s())
            news.set()

    async def _report(self) -> bool:
        """Send a report; False where it has to be tried again."""
        try:
            executor = self._updates.executor
            said = said_by(self._config, self._clock, executor, self._updates.reports(), _NOBODYS)
            check_dates = self._clock.state() is ClockState.TRUSTED
            await asyncio.to_thread(_send, self._config, said, check_dates)
        except ServerUnreachable as error:
            _LOG.debug("%s", error)
            return False
        except (ServerRefused, IdentityError, UpdateBroken) as error:
            _LOG.warning(_("the version report was not taken: {reason}").format(reason=error))
        return True


def said_by(
    config: Config, clock: Clock, executor: Executor, updates: list[UpdateReport], nonce: str
) -> VersionReport:
    """What the device says of its versions over ``nonce``."""
    records = Records(executor.journal, executor.installed, executor.history, _marks(executor))
    return statement(config.device, config.profile, nonce, clock, records, updates)


def signed(config: Config, said: VersionReport) -> str:
    """``said`` as a JWS of the device's key.

    Raises:
        UpdateBroken: there is more to say than a report has room for.
        IdentityError: key or certificate cannot be used.
    """
    try:
        content = encode(said)
    except VersionError as error:
        raise UpdateBroken(str(error)) from None
    broker = config.broker
    return sign(content, broker.key, serial_of(broker.certificate), TYPE)


def _send(config: Config, said: VersionReport, check_dates: bool) -> None:  # noqa: FBT001 - handed to a thread
    """Fetch a nonce, sign, send. Blocking."""
    context = tls_context(config.broker.ca, check_dates=check_dates)
    with DeviceServer(require_url(config), context) as server:
        fresh = msgspec.structs.replace(said, nonce=ask_nonce(server).nonce)
        server.post(REPORT_PATH, signed(config, fresh).encode(), CONTENT_TYPE)


def _marks(executor: Executor) -> Marks:
    """The marks; none where they cannot be read, which the last look tells."""
    try:
        return marks.load(executor.folder)
    except UpdateBroken:
        return Marks()
