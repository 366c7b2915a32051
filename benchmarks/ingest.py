"""Ingest with deferred acknowledgement against the raw limit of a subscriber, and rows against a raw driver.

``messages``: devices publish batches of 20 readings at QoS 1 over mutual TLS through mosquitto
under the server's own configuration. *Raw* is ``mosquitto_sub`` with the same certificate, which
acknowledges at once and throws everything away; *ingest* is the real process, and is done when
every device holds the server's acknowledgement of its last batch, that is, after the commit. After
each round every batch is counted in the database: lost and doubled are part of the result.

``rows``: the store from decoded messages to committed rows, against the bare driver with rows made
beforehand, into the same tables, in transactions of the same size, in turn. *Raw* is the fastest way
known: on PostgreSQL ``COPY``, on SQLite statements of a thousand rows, beside which stands what
``executemany`` does with one row each. Decoding is timed apart, because in the process it runs beside
the store in another thread.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from statistics import median
from typing import Any, Final

import mqtt5
from sqlalchemy import Engine, func, select

from benchmarks.load import READINGS, Load, connect, messages, publish_all
from fleet_protocol.messages import Telemetry, decode
from fleet_protocol.topics import Channel, every_device, topic
from fleet_server.config import Settings, save_settings
from fleet_server.database.engine import open_engine
from fleet_server.database.models import metadata
from fleet_server.database.partitions import DAY_MS, ensure_partitions
from fleet_server.database.schema import upgrade
from fleet_server.link.mosquitto import INGEST
from fleet_server.link.mqtt import Arrival
from fleet_server.telemetry.admission import judge
from fleet_server.telemetry.ingest import BATCH, tune_interpreter
from fleet_server.telemetry.rows import READING, Row
from fleet_server.telemetry.store import Store
from tests.support.batches import register
from tests.support.fleet_broker import FleetBroker
from tests.support.postgres import is_installed, running_postgres
from tests.support.waiting import wait_until

ROUNDS: Final = 5
DEVICES: Final = ("bench-1", "bench-2", "bench-3", "bench-4")
MESSAGES: Final = 20_000
TRANSACTIONS: Final = 12
WIDTH: Final = 1000
ROUND_S: Final = 120.0

_epochs: Final = count(1)


def measure() -> dict[str, object]:
    """Both comparisons on SQLite and PostgreSQL, rounds interleaved.

    Raises:
        SystemExit: the broker's clients or PostgreSQL are not installed.
    """
    if shutil.which("mosquitto_sub") is None or not is_installed():
        raise SystemExit(
            "needs the Debian packages mosquitto-clients and postgresql: scripts/bootstrap tests"
        )
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        server = stack.enter_context(running_postgres())
        urls = {
            "sqlite": f"sqlite:///{place / 'fleet.db'}",
            "postgresql": server.url(server.new_database()),
        }
        engines = {name: _prepared(url, stack) for name, url in urls.items()}
        return {
            "messages": _messages(place, urls, engines),
            "rows": {name: _rows(engine) for name, engine in engines.items()},
        }


def _prepared(url: str, stack: ExitStack) -> Engine:
    engine = open_engine(url)
    stack.callback(engine.dispose)
    upgrade(engine)
    ensure_partitions(engine, time.time_ns() // 1_000_000 - DAY_MS, 3)
    register(engine, *DEVICES)
    return engine


def _messages(place: Path, urls: dict[str, str], engines: dict[str, Engine]) -> dict[str, object]:
    broker = FleetBroker(place)
    broker.start()
    rates: dict[str, list[float]] = {"raw": [], **{name: [] for name in urls}}
    lost = doubled = 0
    try:
        for _round in range(ROUNDS):
            rates["raw"].append(_round_of(broker, lambda: _raw_sink(broker), acknowledged=False)[0])
            for name, url in urls.items():
                save_settings(place, Settings(database_url=url, mqtt_port=broker.config.mqtt_port))
                rate, epoch = _round_of(broker, lambda: _ingest(place, engines[name]), acknowledged=True)  # noqa: B023
                rates[name].append(rate)
                missing, surplus = _account(engines[name], epoch)
                lost, doubled = lost + missing, doubled + surplus
    finally:
        broker.stop()
    raw = median(rates["raw"])
    return {
        "readings_per_message": READINGS,
        "messages_per_round": MESSAGES,
        "rounds": ROUNDS,
        "raw_subscriber_per_s": round(raw),
        **{f"{name}_per_s": round(median(rates[name])) for name in urls},
        **{f"{name}_ratio": round(median(rates[name]) / raw, 3) for name in urls},
        "all_rounds_per_s": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "lost_batches": lost,
        "doubled_batches": doubled,
    }


def _round_of(broker: FleetBroker, receiver: Callable[[], Any], *, acknowledged: bool) -> tuple[float, str]:
    """Messages a second from the first one sent to the last one received, or acknowledged."""
    epoch = f"{next(_epochs):016x}"
    with ExitStack() as stack:
        wait = stack.enter_context(receiver())
        loads: list[Load] = []
        for name in DEVICES:
            load = connect(broker, broker.device(name), messages(name, epoch, MESSAGES // len(DEVICES)))
            stack.callback(load.link.close)
            loads.append(load)
        began = time.monotonic()
        publish_all(loads, began + ROUND_S, acknowledged=acknowledged)
        wait()
        return MESSAGES / (time.monotonic() - began), epoch


@contextmanager
def _raw_sink(broker: FleetBroker) -> Iterator[Callable[[], object]]:
    identity = broker.service(INGEST)
    sink = subprocess.Popen(
        ["mosquitto_sub", "-h", "localhost", "-p", str(broker.config.mqtt_port),
         "-V", "5", "-q", "1", "-i", INGEST, "-D", "connect", "receive-maximum", "5000",
         "--cafile", identity.ca, "--cert", identity.certificate, "--key", identity.key,
         "-t", every_device(Channel.TELEMETRY), "-C", str(MESSAGES)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await_subscription(broker)
        yield lambda: sink.wait(ROUND_S)
    finally:
        with suppress(ProcessLookupError):
            sink.kill()
        sink.wait()


def _await_subscription(broker: FleetBroker) -> None:
    """The broker answers a publication that nobody listens to with a code of its own."""

    def is_heard() -> bool:
        load = connect(broker, broker.device(DEVICES[0]), [])
        try:
            load.link.setblocking(True)
            probe = mqtt5.PublishPacket(
                topic(DEVICES[0], Channel.TELEMETRY), b"", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1
            )
            load.link.sendall(probe.write())
            packet, _size = mqtt5.read(memoryview(load.link.recv(1024)))
            return (
                isinstance(packet, mqtt5.PubAckPacket)
                and packet.reason_code == mqtt5.PubAckReasonCode.SUCCESS
            )
        finally:
            load.link.close()

    wait_until(is_heard, "the raw sink listens")


@contextmanager
def _ingest(place: Path, engine: Engine) -> Iterator[Callable[[], object]]:
    service = metadata.tables["service"]
    began_ms = time.time_ns() // 1_000_000

    def has_begun() -> bool:
        with engine.connect() as connection:
            asked = select(service.c.started_ms).where(service.c.name == INGEST)
            return (connection.scalar(asked) or 0) >= began_ms

    process = subprocess.Popen([sys.executable, "-m", "fleet_server", "ingest", "--data", place])
    try:
        wait_until(has_begun, "ingest is subscribed")
        yield lambda: None
    finally:
        process.terminate()
        process.wait(30)


def _account(engine: Engine, epoch: str) -> tuple[int, int]:
    """How many batches of ``epoch`` are not, or not once, in the database."""
    reading, cursor = metadata.tables["reading"], metadata.tables["ingest_cursor"]
    statement = (
        select(reading.c.cursor, reading.c.seq, func.count())
        .join(cursor, cursor.c.id == reading.c.cursor)
        .where(cursor.c.epoch == epoch)
        .group_by(reading.c.cursor, reading.c.seq)
    )
    with engine.connect() as connection:
        sizes = [row[2] for row in connection.execute(statement)]
    whole = sum(size >= READINGS for size in sizes)
    return MESSAGES - whole, sum(size > READINGS for size in sizes)


def _rows(engine: Engine) -> dict[str, object]:
    """Rows a second of the store and of the bare driver, transaction by transaction in turn."""
    tune_interpreter()
    store, raw = Store(engine), engine.raw_connection()
    is_sqlite = engine.dialect.name == "sqlite"
    bare_commit, prepared = (_wide, _widened) if is_sqlite else (_copy, _as_they_are)
    decoding, ours, bare, single = [], [], [], []
    try:
        for arrivals, rows in _transactions():
            decoding.append(_timed(judge, arrivals))
            ours.append(_timed(store.commit_judged, judge(arrivals)))
            bare.append(_timed(bare_commit, raw.driver_connection, prepared(rows)))
            if is_sqlite:
                single.append(_timed(_executemany, raw.driver_connection, rows))
    finally:
        store.close()
        raw.close()
    amount = BATCH * READINGS
    return {
        "rows_per_transaction": amount,
        "transactions": TRANSACTIONS,
        "store_rows_per_s": round(amount / median(ours)),
        "raw_rows_per_s": round(amount / median(bare)),
        "ratio": round(median(bare) / median(ours), 3),
        "ratio_with_decoding": round(median(bare) / (median(ours) + median(decoding)), 3),
        **(_against_single(amount / median(ours), amount / median(single)) if single else {}),
    }


def _transactions() -> Iterator[tuple[list[Arrival], list[Row]]]:
    """The same readings as messages and as rows; the rows of metrics that are nobody's."""
    epoch, each = f"{next(_epochs):016x}", BATCH // len(DEVICES)
    received_ms = time.time_ns() // 1_000_000
    packets = {name: messages(name, epoch, each * TRANSACTIONS) for name in DEVICES}
    for number in range(TRANSACTIONS):
        arrivals: list[Arrival] = []
        rows: list[Row] = []
        for place, made in enumerate(packets.values()):
            for packet in made[number * each : (number + 1) * each]:
                publish, _size = mqtt5.read(memoryview(packet))
                assert isinstance(publish, mqtt5.PublishPacket)
                arrivals.append(Arrival(publish.topic, publish.payload, False, received_ms))
                batch = decode(Channel.TELEMETRY, publish.payload)
                assert isinstance(batch, Telemetry)
                rows += [
                    (
                        -(place * READINGS + r.metric) - 1,
                        batch.base.wall_ms + r.offset_ms,
                        0,
                        batch.seq,
                        0,
                        0,
                        r.value,
                    )
                    for r in batch.readings
                ]
        yield arrivals, rows


def _against_single(ours: float, single: float) -> dict[str, object]:
    return {"executemany_rows_per_s": round(single), "ratio_to_executemany": round(ours / single, 3)}


def _as_they_are(rows: list[Row]) -> list[Row]:
    return rows


def _widened(rows: list[Row]) -> list[Row]:
    """The values of :data:`WIDTH` rows each, one after the other."""
    return [tuple(chain.from_iterable(rows[at : at + WIDTH])) for at in range(0, len(rows), WIDTH)]


def _wide(connection: Any, rows: list[Row]) -> None:
    _insert(connection, rows, WIDTH)


def _executemany(connection: Any, rows: list[Row]) -> None:
    _insert(connection, rows, 1)


def _insert(connection: Any, rows: list[Row], width: int) -> None:
    values = ", ".join([f"({', '.join('?' * len(READING))})"] * width)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT OR ROLLBACK INTO reading ({', '.join(READING)}) VALUES {values}", rows)
    connection.commit()


def _copy(connection: Any, rows: list[Row]) -> None:
    with connection.cursor().copy(f"COPY reading ({', '.join(READING)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "int8", "int8", "int8", "int2", "int2", "float8"])
        for row in rows:
            copy.write_row(row)
    connection.commit()


def _timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began
