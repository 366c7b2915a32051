"""The rollouts process: moves every rollout on, and sends the hints that follow.

It keeps nothing in memory that matters: what is due is asked of the database each time, every
rollout moves in one transaction, and killed at any moment it goes on where that left things.
"""

import logging
import signal
import time
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.service import BEAT_S, beat
from fleet_server.link.mosquitto import ROLLOUTS
from fleet_server.link.mqtt import Broker, Subscriber
from fleet_server.telemetry.ingest import Stop
from fleet_server.updates.hints import Hints
from fleet_server.updates.rollouts import advance, is_due, lock, pending

ROUND_S: Final = 0.5
"""How often it looks; a device takes longer for any step."""

SHARE: Final = 5
"""It rests so many times as long as a round took: a large fleet must not cost the database all its time."""

log: Final = logging.getLogger(__name__)


class Loop:
    """The rounds of the rollouts process."""

    def __init__(self, engine: Engine, subscriber: Subscriber) -> None:
        self._engine: Final = engine
        self._hints: Final = Hints(engine, subscriber)
        self._started_ms: Final = wall_ms()
        self._next_beat = 0.0

    def round(self) -> None:
        """Do whatever is due now. A database that fails is tried again in the next round."""
        try:
            if time.monotonic() >= self._next_beat:
                beat(self._engine, ROLLOUTS, self._started_ms, wall_ms())
                self._next_beat = time.monotonic() + BEAT_S
            self._advance_all()
            self._hints.work(wall_ms())
        except SQLAlchemyError as error:
            log.warning(_("the database failed, rollouts wait for it: {reason}").format(reason=error))

    def _advance_all(self) -> None:
        with Session(self._engine) as session:
            found = [each for each in pending(session) if is_due(session, *each, wall_ms())]
        for tenant, identity in found:
            # Decided again under its lock: somebody may have paused or aborted it meanwhile.
            with writing(self._engine) as session:
                row = lock(session, tenant, identity)
                if advance(session, row, wall_ms()):
                    log.info("rollout %s: %s %s", identity, row.state, row.detail)


def run(config: ServerConfig) -> None:
    """Be the rollouts process of the server on ``config`` until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    folder = config.service(ROLLOUTS)
    broker = Broker(
        config.mqtt_host, config.mqtt_port, ROLLOUTS, config.ca, folder / "cert.pem", folder / "key.pem"
    )
    engine = open_engine(config.database_url)
    subscriber = Subscriber(broker, [])
    loop = Loop(engine, subscriber)
    try:
        while not stop.is_asked:
            began = time.monotonic()
            loop.round()
            _rest(subscriber, stop, max(ROUND_S, SHARE * (time.monotonic() - began)))
    finally:
        subscriber.close()
        engine.dispose()


def _rest(subscriber: Subscriber, stop: Stop, rest_s: float) -> None:
    """Keep the connection alive meanwhile; it may end any wait early."""
    until = time.monotonic() + rest_s
    while not stop.is_asked and (left := until - time.monotonic()) > 0:
        subscriber.tend(min(left, ROUND_S))
