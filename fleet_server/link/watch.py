"""The watch on the broker: whether it can be reached, and whether it drops messages.

A process of its own with its own connection, so that it still sees what ingest, being stuck, does
not. :class:`Judgement` decides and is pure; :func:`run` listens and writes down.
"""

import logging
import time
from typing import Final

from fleet_protocol.texts import _
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine
from fleet_server.database.notes import Notes
from fleet_server.link.mosquitto import DROPPED_TOPIC, WATCH
from fleet_server.link.mqtt import Broker, Subscriber, Subscription

DOWN_AFTER_S: Final = 5.0
"""A broker that is started again is back sooner; that is no reason to wake anybody."""

QUIET_AFTER_S: Final = 60.0
"""The broker tells its counters every 10 s: six times without growth means that dropping is over."""

_CODES: Final = ("broker.down", "broker.dropping")
_WAIT_S: Final = 1.0
_MOST: Final = 100


class Judgement:
    """What follows from the connection's state and the broker's counter. Times are monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self._linked_s = now_s
        self._is_linked = False
        self._dropped: int | None = None
        self._grew_s: float | None = None

    def see_link(self, now_s: float, *, is_linked: bool) -> None:
        """Note whether the broker is connected."""
        self._is_linked = is_linked
        if is_linked:
            self._linked_s = now_s

    def see_dropped(self, now_s: float, count: int) -> None:
        """Note the broker's counter. It begins at 0 when the broker does, so less than before is all new."""
        before = self._dropped
        if before is not None and count != before and count > 0:
            self._grew_s = now_s
        self._dropped = count

    def raised(self, now_s: float) -> dict[str, str]:
        """The codes that hold now, each with its detail."""
        codes = {}
        if not self._is_linked and now_s - self._linked_s >= DOWN_AFTER_S:
            codes["broker.down"] = ""
        if self._grew_s is not None and now_s - self._grew_s < QUIET_AFTER_S:
            codes["broker.dropping"] = _("{count} dropped since the broker started").format(
                count=self._dropped
            )
        return codes


def run(config: ServerConfig) -> None:
    """Watch until the process is ended."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    folder = config.service(WATCH)
    broker = Broker(
        config.mqtt_host, config.mqtt_port, WATCH, config.ca, folder / "cert.pem", folder / "key.pem"
    )
    subscriber = Subscriber(broker, [Subscription(DROPPED_TOPIC, retained=True)])
    judgement = Judgement(time.monotonic())
    notes = Notes(open_engine(config.database_url), WATCH, _CODES)
    while True:
        arrivals = subscriber.collect(_MOST, _WAIT_S, 0.0)
        now_s = time.monotonic()
        judgement.see_link(now_s, is_linked=subscriber.is_connected)
        for arrival in arrivals:
            if arrival.topic == DROPPED_TOPIC and arrival.payload.isdigit():
                judgement.see_dropped(now_s, int(arrival.payload))
        subscriber.acknowledge(arrivals)
        notes.keep(judgement.raised(now_s), now_s)
