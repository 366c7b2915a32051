"""The escalation process: receives questions, has them answered, says that it lives and what ails it."""

import logging
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine

from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, every_device
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine
from fleet_server.database.service import BEAT_S, beat, clear_code, raise_code
from fleet_server.errors import BackendError, StoreError
from fleet_server.escalation.budget import budget, given
from fleet_server.escalation.clerk import Clerk
from fleet_server.escalation.fairness import Budgets
from fleet_server.escalation.lane import AT_ONCE, Lane, open_lane
from fleet_server.escalation.ledger import Ledger
from fleet_server.link.mosquitto import ESCALATION
from fleet_server.link.mqtt import Arrival, Broker, Subscriber, Subscription
from fleet_server.link.retained import clear_retained
from fleet_server.telemetry.faults import unavailable
from fleet_server.telemetry.ingest import Stop

BATCH: Final = 200
"""Questions looked at in one go."""

WAIT_S: Final = 0.5
"""How long a look for messages lasts; what was answered meanwhile ends it."""

REOPEN_S: Final = 10.0
"""Between attempts to open a central model that could not be opened."""

PRUNE_S: Final = 3600.0
RETRY_S: Final = 0.5
DOWN: Final = "escalation.down"

log: Final = logging.getLogger(__name__)


class Service:
    """The loop: collect, decide, hand out; and now and then the chores."""

    def __init__(
        self, subscriber: Subscriber, clerk: Clerk, chores: "Chores", opener: "Opener", stop: Stop
    ) -> None:
        self._subscriber: Final = subscriber
        self._clerk: Final = clerk
        self._chores: Final = chores
        self._opener: Final = opener
        self._stop: Final = stop
        self._untaken: list[Arrival] = []

    def run(self) -> None:
        """Answer until asked to stop."""
        while not self._stop.is_asked:
            self._clerk.lane = self._opener.lane
            try:
                self._step()
            except StoreError as error:
                log.warning("%s", error)
                self._subscriber.tend(RETRY_S)
            if self._subscriber.is_connected:
                self._chores.do(self._clerk.backend_fault or self._opener.fault)

    def _step(self) -> None:
        if not self._untaken:
            self._untaken = self._subscriber.collect(BATCH, WAIT_S, 0.0)
        self._clerk.take(self._untaken)
        clear_retained(self._subscriber, self._untaken)
        self._untaken = []
        self._clerk.move(wall_ms())


class Opener:
    """Opens the lane, and tries again from time to time where that failed."""

    def __init__(self, config: ServerConfig, engine: Engine, pool: ThreadPoolExecutor) -> None:
        """Open it, or find out why it cannot be."""
        self._config: Final = config
        self._engine: Final = engine
        self._pool: Final = pool
        self._attempt: Future[Lane] | None = None
        self._again_s = 0.0
        self.fault: str | None = None
        """Why a central model that was given cannot be used."""
        self._lane: Lane | None = None
        if config.central_model is not None:
            self._settle(pool.submit(open_lane, config, config.central_model, engine))

    @property
    def lane(self) -> Lane | str:
        """The lane, or why there is none; looks after the next attempt."""
        folder = self._config.central_model
        if folder is None:
            return _("this server has no central model; it is started with --central-model")
        if self._lane is None and self._attempt is None and time.monotonic() >= self._again_s:
            self._attempt = self._pool.submit(open_lane, self._config, folder, self._engine)
        if self._attempt is not None and self._attempt.done():
            self._settle(self._attempt)
            self._attempt = None
        return self._lane or _("the central model cannot be used: {reason}").format(reason=self.fault)

    def close(self) -> None:
        """Give back what was opened."""
        if self._lane is not None:
            self._lane.close()

    def _settle(self, attempt: "Future[Lane]") -> None:
        try:
            self._lane, self.fault = attempt.result(), None
        except BackendError as error:
            log.warning("%s", error)
            self.fault = str(error)
            self._again_s = time.monotonic() + REOPEN_S


class Chores:
    """What is done now and then: telling that it lives and what ails it, taking up budgets, forgetting."""

    def __init__(self, engine: Engine, ledger: Ledger, config: ServerConfig, budgets: Budgets) -> None:
        self._engine: Final = engine
        self._ledger: Final = ledger
        self._tenant: Final = config.tenant
        self._started_with: Final = given(config)
        self._budgets: Final = budgets
        self._started_ms = wall_ms()
        self._next_beat_s = 0.0
        self._next_prune_s = 0.0
        self._told: str | None = ""

    def do(self, fault: str | None) -> None:
        """Do what is due; ``fault`` is what keeps questions from being answered now."""
        now_s = time.monotonic()
        try:
            with unavailable():
                if fault != self._told:
                    self._tell(fault)
                if now_s >= self._next_beat_s:
                    self._next_beat_s = now_s + BEAT_S
                    beat(self._engine, ESCALATION, self._started_ms, wall_ms())
                    self._budgets.change(*budget(self._engine, self._tenant, self._started_with))
            if now_s >= self._next_prune_s:
                self._next_prune_s = now_s + PRUNE_S
                self._ledger.prune(wall_ms())
        except StoreError as error:
            log.warning("%s", error)

    def _tell(self, fault: str | None) -> None:
        if fault is None:
            clear_code(self._engine, DOWN, wall_ms())
        else:
            raise_code(self._engine, DOWN, wall_ms(), fault)
        self._told = fault


def run(config: ServerConfig) -> None:
    """Be the escalation process of the server on ``config`` until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A request to the inference server is no news.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    with running(config, stop) as service:
        service.run()


@contextmanager
def running(config: ServerConfig, stop: Stop) -> Iterator[Service]:
    """A service with its connections, closed in order."""
    folder = config.service(ESCALATION)
    broker = Broker(
        config.mqtt_host, config.mqtt_port, ESCALATION, config.ca, folder / "cert.pem", folder / "key.pem"
    )
    engine = open_engine(config.database_url)
    pool = ThreadPoolExecutor(AT_ONCE, "lane")
    opener = Opener(config, engine, pool)
    subscriber = Subscriber(broker, [Subscription(every_device(Channel.REQUEST))])
    ledger = Ledger(engine)
    budgets = Budgets(*given(config))
    try:
        clerk = Clerk(subscriber, ledger, budgets, pool)
        yield Service(subscriber, clerk, Chores(engine, ledger, config, budgets), opener, stop)
    finally:
        # What is at work is not waited for: nobody was told an answer, and it comes again.
        pool.shutdown(wait=False, cancel_futures=True)
        subscriber.close()
        opener.close()
        engine.dispose()
