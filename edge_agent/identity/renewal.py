"""The task that renews this device's certificate in time, or late, and says so where it fails.

When is decided in :mod:`~edge_agent.identity.renewal_time`, by this device's clock as long as that can be
believed and the broker believes it too; else by the server's. A session with the broker is not cut for
it: a broker looks at a certificate when a session begins, and the next one shows the new one.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from edge_agent.backoff import FullJitter
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.errors import AgentError, IdentityError, LinkRefused, RenewalError
from edge_agent.identity.device_server import DeviceServer
from edge_agent.identity.identity import Identity, load_identity
from edge_agent.identity.proof import ask_nonce
from edge_agent.identity.renewal_time import FIRST_WAIT_S, due_ms, longest_wait_s
from edge_agent.identity.renewing import renew, require_url
from edge_agent.link.https import tls_context
from edge_agent.service.health import HealthBoard
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _

GRACE: Final = "certificate.grace"

_LOG: Final = logging.getLogger(__name__)

_LOOK_S: Final = 3600.0
"""How often the date is looked at again; a clock may have been set meanwhile."""

_ASK_MS: Final = 86_400_000
"""How long the server's time is counted on from what it was, where this clock is not believed."""

_SPREAD_S: Final = 3.0
"""The first attempt comes within this: a district whose power returns starts at one moment."""


class Renewal:
    """Keeps one certificate fresh; ``renewed`` is called when there is a new one."""

    def __init__(
        self, config: Config, clock: Clock, health: HealthBoard, renewed: Callable[[], None]
    ) -> None:
        self._config: Final = config
        self._clock: Final = clock
        self._health: Final = health
        self._renewed: Final = renewed
        self._backoff: FullJitter | None = None
        self._server_ahead_ms = 0
        self._asked_ms: int | None = None

    async def run(self) -> None:
        """Renew whenever it is time."""
        await asyncio.sleep(random.uniform(0.0, _SPREAD_S))  # noqa: S311 - spreads load
        while True:
            wait_s = await self._look()
            await asyncio.sleep(wait_s)

    async def _look(self) -> float:
        """Look whether it is time, and renew if so; how long to wait then, in seconds."""
        try:
            identity = load_identity(self._config.device, self._config.broker)
        except IdentityError as error:
            self._health.raise_code(RenewalError.code, str(error))
            return _LOOK_S
        try:
            now_ms = await self._now_ms()
        except AgentError:
            # Without the time nobody knows whether it is due; that there is no server is told elsewhere.
            return self._pause_s(identity)
        self._tell(identity, now_ms)
        left_ms = due_ms(identity) - now_ms
        if left_ms > 0:
            self._health.clear(RenewalError.code)
            return min(left_ms / 1000 + 1.0, _LOOK_S)
        return await self._renew(identity)

    async def _renew(self, before: Identity) -> float:
        try:
            after = await asyncio.to_thread(renew, self._config, check_dates=self._trusted)
        except AgentError as error:
            self._health.raise_code(RenewalError.code, str(error))
            return self._pause_s(before)
        return self._done(before, after)

    def _done(self, before: Identity, after: Identity) -> float:
        self._backoff = None
        self._health.clear(RenewalError.code)
        self._health.clear(GRACE)
        if after.serial == before.serial:
            # By the server's clock it is fresh; this one may be ahead.
            return _LOOK_S
        _LOG.info(_("the certificate was renewed, until {date:%Y-%m-%d}").format(date=after.not_after))
        self._renewed()
        return FIRST_WAIT_S

    def _pause_s(self, identity: Identity) -> float:
        """How long to wait after an attempt that failed."""
        if self._backoff is None:
            longest_s = longest_wait_s(identity.not_before_ms, identity.not_after_ms)
            self._backoff = FullJitter(min(FIRST_WAIT_S, longest_s), longest_s)
        return self._backoff.next_s()

    def _tell(self, identity: Identity, now_ms: int) -> None:
        if now_ms <= identity.not_after_ms:
            self._health.clear(GRACE)
            return
        self._health.raise_code(
            GRACE, _("it expired on {date:%Y-%m-%d}; it is being renewed").format(date=identity.not_after)
        )

    @property
    def _trusted(self) -> bool:
        return self._clock.state() is ClockState.TRUSTED

    async def _now_ms(self) -> int:
        """What time it is: the server's word where this clock, or what the broker says, is in doubt.

        Raises:
            AgentError: this clock cannot be believed, and the server does not say.
        """
        refused = any(each.code == LinkRefused.code for each in self._health.reports())
        if self._trusted and not refused:
            return self._clock.wall_ms()
        try:
            return await self._server_ms()
        except AgentError:
            if self._trusted:
                return self._clock.wall_ms()
            raise

    async def _server_ms(self) -> int:
        """The server's time, counted on from when it was last asked."""
        mono_ms = self._clock.mono_ms()
        if self._asked_ms is None or mono_ms - self._asked_ms > _ASK_MS:
            told_ms = await asyncio.to_thread(self._ask, require_url(self._config))
            self._asked_ms = self._clock.mono_ms()
            self._server_ahead_ms = told_ms - self._asked_ms
        return self._clock.mono_ms() + self._server_ahead_ms

    def _ask(self, url: str) -> int:
        context = tls_context(self._config.broker.ca, check_dates=self._trusted)
        with DeviceServer(url, context) as server:
            return ask_nonce(server).now_ms
