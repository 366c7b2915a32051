"""Makes the broker obey what was revoked, held and let in again, and keeps its lists fresh.

What is due is asked of the database, and noted there once it is done, so that a guard that is killed
in the middle begins again. An order is obeyed when three things are so: the list is written, the
broker refuses a canary that is on it, and the device's session has been ended: reading a new list alone
leaves a revoked client connected.

An outside broker fetches the list when it likes. Until it has, a revoked device is thrown out again
and again, and the order stays open.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.passing import Canary, evict
from fleet_server.authority.providing import CRL_FILE
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate
from fleet_server.devices.certificates import all_revoked
from fleet_server.errors import BrokerError
from fleet_server.files import write_durably
from fleet_server.identity.revoking import TAKEN_BACK
from fleet_server.link.mosquitto import tell_to_reload

FRESH_MS: Final = 86_400_000
"""The list is made anew every day, so that it never comes near its end, however the clock is set."""

OBEYED_S: Final = 2.0
"""How long to wait for the broker to read the list; ours takes a twentieth of a second."""

AGAIN_S: Final = 5.0
"""After how long an order that is not obeyed yet is given again."""

PORTION: Final = 100
"""Certificates dealt with at once: ending a session takes milliseconds, and the guard has more to do."""

_PROBE_S: Final = 0.02

log: Final = logging.getLogger(__name__)


class Order(NamedTuple):
    """A certificate whose state the broker does not obey yet."""

    tenant: str
    serial: str
    device: str
    revoked_ms: int | None
    reason: str

    @property
    def admits(self) -> bool:
        """Whether it is to be let in again."""
        return self.reason == TAKEN_BACK


class Revocation:
    """The unit of the guard that sees to it; :meth:`work` does what is due."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine: Final = engine
        self._config: Final = config
        self._canary: Canary | None = None
        self._orders: frozenset[Order] = frozenset()
        self._again_s = 0.0

    def work(self) -> None:
        """Give the orders that are due, or a fresh list.

        Raises:
            ServerError: the authority or a file cannot be used.
            SQLAlchemyError: the database cannot.
        """
        orders = pending(self._engine)
        is_new = not self._orders.issuperset(orders)
        self._orders = frozenset(orders)
        if orders and (is_new or time.monotonic() >= self._again_s):
            self._enforce(orders)
            self._again_s = time.monotonic() + AGAIN_S
        elif self._is_stale():
            self._write(open_authority(self._config.authority, may_make=False))

    def _enforce(self, orders: Sequence[Order]) -> None:
        began = time.monotonic()
        authority = open_authority(self._config.authority, may_make=False)
        if self._canary is None or not self._canary.lives(wall_ms()):
            self._canary = Canary(self._config, authority)
        self._write(authority)
        is_obeyed = self._await_refusal(self._canary)
        ended = self._end_sessions(authority, {one.device for one in orders if not one.admits})
        if is_obeyed:
            self._canary = None
            done = [one for one in orders if one.admits or one.device in ended]
            settle(self._engine, done, wall_ms())
            took_s = time.monotonic() - began
            log.info(_("{count} certificates enforced in {took:.2f} s").format(count=len(done), took=took_s))
        else:
            log.warning(_("the broker does not know the newest list of the revoked yet"))

    def _write(self, authority: Authority) -> None:
        now_ms = wall_ms()
        revoked = all_revoked(self._engine, now_ms)
        if self._canary is not None:
            revoked.append(self._canary.entry(now_ms))
        write_durably(self._config.broker / CRL_FILE, authority.crl_pem(revoked), 0o644)
        if self._config.embedded:
            tell_to_reload(self._config)

    def _is_stale(self) -> bool:
        """Whether the list is missing or old: one that a guard before this one wrote is as good.

        None is written without need, because a broker that reads its configuration anew queues nothing more
        for a service that is away, until that comes back.
        """
        try:
            written_ms = (self._config.broker / CRL_FILE).stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return True
        return not 0 <= wall_ms() - written_ms < FRESH_MS

    def _await_refusal(self, canary: Canary) -> bool:
        deadline = time.monotonic() + OBEYED_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                if canary.is_refused():
                    return True
            time.sleep(_PROBE_S)
        return False

    def _end_sessions(self, authority: Authority, devices: set[str]) -> set[str]:
        """Throw ``devices`` out; which of them are."""
        ended = set()
        for device in sorted(devices):
            try:
                evict(self._config, authority, device)
            except (OSError, BrokerError) as error:
                log.warning(
                    _("the session of {device} cannot be ended: {reason}").format(device=device, reason=error)
                )
            else:
                ended.add(device)
        return ended


def pending(engine: Engine) -> list[Order]:
    """Orders that are not obeyed yet, the oldest first, :data:`PORTION` of them at most."""
    query = (
        select(Certificate)
        .where(Certificate.revoked_reason != "", col(Certificate.enforced_ms).is_(None))
        .order_by(col(Certificate.revoked_ms), col(Certificate.serial))
        .limit(PORTION)
    )
    with Session(engine) as session:
        return [
            Order(row.tenant, row.serial, row.device, row.revoked_ms, row.revoked_reason)
            for row in session.exec(query)
        ]


def settle(engine: Engine, orders: Sequence[Order], now_ms: int) -> None:
    """Note that ``orders`` are obeyed; one that has been changed meanwhile stays open."""
    with writing(engine) as session:
        for one in orders:
            row = session.get(Certificate, (one.tenant, one.serial), with_for_update=True)
            if row is None or (row.revoked_ms, row.revoked_reason) != (one.revoked_ms, one.reason):
                continue
            if one.admits:
                row.revoked_reason = ""
            else:
                row.enforced_ms = now_ms
            session.add(row)
            detail = {"serial": one.serial, "reason": one.reason}
            append(
                session,
                one.tenant,
                Actor.system("guard"),
                Change("certificate.enforce", one.device, detail=detail),
            )
