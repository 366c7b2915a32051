"""The ingest process: receives, commits, and only then acknowledges, to the broker and to the devices.

The order is the promise. The broker's copy is given up (PUBACK), and a device's copy is given up
(``down/ack``), only for what :meth:`Store.commit` has made durable. While the database cannot be
written nothing is acknowledged and everything waits where it is safe: in the broker and on the
devices.
"""

import gc
import logging
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from types import FrameType
from typing import Final, NamedTuple

from sqlalchemy import Engine

from fleet_protocol.messages import Ack, encode
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, every_device, topic
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine
from fleet_server.database.partitions import DAY_MS, ensure_partitions
from fleet_server.database.service import BEAT_S, beat, clear_code, raise_code
from fleet_server.errors import StoreError
from fleet_server.link.mosquitto import INGEST
from fleet_server.link.mqtt import Arrival, Broker, Subscriber, Subscription
from fleet_server.link.retained import clear_retained
from fleet_server.telemetry.admission import TAKEN, Judged, judge
from fleet_server.telemetry.allowances import Allowances, Limits
from fleet_server.telemetry.faults import unavailable
from fleet_server.telemetry.store import Store
from fleet_server.telemetry.transaction import Outcome

BATCH: Final = 1000
"""Messages in one transaction, under load: half as many cost a quarter more each on SQLite, twice as many
nothing less."""

LINGER_S: Final = 0.02
"""How long the first message of a transaction waits for company."""

ACK_EXPIRY_S: Final = 300
"""An acknowledgement that a device has not fetched by then is stale: it has asked again."""

SWITCH_S: Final = 0.000_5
"""How long a thread may keep the interpreter: at the stock 5 ms the writer, which comes back from the
database's code every few rows, would stand behind the decoder each time."""

GARBAGE_AFTER: Final = 50_000
"""Objects made before the collector looks for cycles: the rows of a transaction are none, and looking at
them every 700, as is stock, takes nearly half of the time that building them does."""

RETRY_S: Final = (0.1, 5.0)
"""First and longest wait for a database that cannot be written."""

PARTITION_DAYS: Final = (14, 3)
"""Days behind and ahead that have a partition of their own; what is older waits in the default one."""

log: Final = logging.getLogger(__name__)


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.is_asked = False

    def ask(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Ask; also as a signal handler."""
        self.is_asked = True


class _Commit(NamedTuple):
    """Messages on their way into the database."""

    arrivals: list[Arrival]
    judged: Judged
    future: "Future[Outcome]"


class Ingest:
    """One subscriber, one store, and what goes between them.

    Two threads share the work, because a commit mostly waits, or computes in the database's own
    code: while one transaction is written, the next messages are received and decoded here.
    """

    def __init__(
        self, subscriber: Subscriber, store: Store, engine: Engine, limits: Limits, stop: Stop
    ) -> None:
        self._subscriber: Final = subscriber
        self._allowances: Final = Allowances(limits)
        self._store: Final = store
        self._stop: Final = stop
        self._chores: Final = _Chores(engine)
        self._writer: Final = ThreadPoolExecutor(1, "store")
        self._pending: _Commit | None = None

    def run(self) -> None:
        """Take in messages until asked to stop."""
        with self._writer:
            while not self._stop.is_asked:
                self._step()
            self._finish()

    def _step(self) -> None:
        """Take in what has come, while what came before is being written."""
        arrivals = self._subscriber.collect(BATCH, wait_s=1.0, linger_s=LINGER_S)
        judged = self._allowances.within(judge(arrivals), time.monotonic())
        if self._pending is not None and (arrivals or self._pending.future.done()):
            self._finish()
        if self._pending is None and self._subscriber.is_connected:
            self._chores.do()
        if arrivals:
            self._pending = _Commit(arrivals, judged, self._begin(judged))

    def _begin(self, judged: Judged) -> "Future[Outcome]":
        future = self._writer.submit(self._store.commit_judged, judged)
        future.add_done_callback(lambda _future: self._subscriber.wake())
        return future

    def _finish(self) -> None:
        """Wait until what is pending is durable, and acknowledge it: here, and nowhere before."""
        if self._pending is None:
            return
        arrivals, judged, future = self._pending
        self._pending = None
        outcome = self._outcome(judged, future)
        if outcome is not None:
            self._subscriber.acknowledge(arrivals)
            clear_retained(self._subscriber, (one.arrival for one in judged.refused))
            for device, marks in outcome.marks.items():
                self._subscriber.publish(topic(device, Channel.ACK), encode(Ack(marks=marks)), ACK_EXPIRY_S)

    def _outcome(self, judged: Judged, future: "Future[Outcome]") -> Outcome | None:
        """However long the database takes to come back; nothing if asked to stop before."""
        for attempts in count(1):
            try:
                outcome = future.result()
            except StoreError as error:
                self._chores.database_failed(error)
            else:
                self._chores.database_worked()
                return outcome
            self._wait(attempts)
            if self._stop.is_asked:
                break
            future = self._begin(judged)
        return None

    def _wait(self, attempts: int) -> None:
        first, longest = RETRY_S
        wait_s = random.uniform(first, min(longest, first * 2 ** min(attempts, 16)))  # noqa: S311 - no secret
        deadline = time.monotonic() + wait_s
        while not self._stop.is_asked and (left := deadline - time.monotonic()) > 0:
            self._subscriber.tend(min(left, 0.5))


class _Chores:
    """What ingest does now and then: says that it lives, tells of its database, makes partitions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._started_ms = wall_ms()
        self._next_beat = 0.0
        self._partitions_until_ms = 0
        self._down_since_ms: int | None = None
        self._failures = 0
        self._reason = ""

    def do(self) -> None:
        """Do what is due."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_S
        try:
            with unavailable():
                beat(self._engine, INGEST, self._started_ms, wall_ms())
                self._provide_partitions()
        except StoreError as error:
            log.warning("%s", error)

    def database_failed(self, error: StoreError) -> None:
        """Raise ``database.down``, as far as the database lets it be written."""
        self._failures += 1
        self._reason = str(error)
        if self._down_since_ms is None:
            self._down_since_ms = wall_ms()
            log.error("%s", error)
        with suppress(StoreError), unavailable():
            raise_code(self._engine, "database.down", self._down_since_ms, self._reason, 0)

    def database_worked(self) -> None:
        """Write down what happened, and that it is over."""
        if self._down_since_ms is None:
            return
        log.warning(_("the database can be written again"))
        with suppress(StoreError), unavailable():
            raise_code(self._engine, "database.down", self._down_since_ms, self._reason, self._failures)
            clear_code(self._engine, "database.down", wall_ms())
            self._down_since_ms, self._failures = None, 0

    def _provide_partitions(self) -> None:
        behind, ahead = PARTITION_DAYS
        now_ms = wall_ms()
        if now_ms < self._partitions_until_ms:
            return
        ensure_partitions(self._engine, now_ms - behind * DAY_MS, behind + ahead)
        self._partitions_until_ms = now_ms + DAY_MS // 2


def run(config: ServerConfig) -> None:
    """Be the ingest process of the server on ``config`` until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = config.service(INGEST)
    broker = Broker(
        config.mqtt_host, config.mqtt_port, INGEST, config.ca, folder / "cert.pem", folder / "key.pem"
    )
    tune_interpreter()
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    limits = Limits(
        config.device_messages_per_s,
        config.device_bytes_per_s,
        config.device_backlog_messages,
        config.device_backlog_bytes,
    )
    with running(broker, config.database_url, limits, stop) as ingest:
        ingest.run()


def tune_interpreter() -> None:
    """Set the interpreter up for two threads, and for many rows that live for one transaction."""
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


@contextmanager
def running(broker: Broker, database_url: str, limits: Limits, stop: Stop) -> Iterator[Ingest]:
    """An ingest with its connections, closed in order."""
    engine = open_engine(database_url)
    store = Store(engine)
    subscriber = Subscriber(broker, subscriptions())
    try:
        yield Ingest(subscriber, store, engine, limits, stop)
    finally:
        subscriber.close()
        store.close()
        engine.dispose()


def subscriptions() -> list[Subscription]:
    """All devices' channels that ingest takes in."""
    return [Subscription(every_device(channel), channel.delivery.retained) for channel in TAKEN]
