"""The store on both databases: numbers, marks, gaps, times, and who may not write."""

import itertools
import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from fleet_protocol.messages import ClockState, Events, Mark, Metric, Reading, Status, Stream, Telemetry
from fleet_protocol.topics import Channel
from fleet_server.database.models import inference, metadata, reading
from fleet_server.telemetry import query
from fleet_server.telemetry.placing import Placement
from fleet_server.telemetry.rows import Origin, Row, event_rows, reading_rows
from fleet_server.telemetry.store import Store
from fleet_server.telemetry.transaction import KEPT_REFUSALS, Outcome
from tests.support.batches import (
    BOOT,
    EPOCH,
    NOW_MS,
    arrival,
    arrivals,
    base,
    events,
    gap,
    register,
    telemetry,
)

EPOCHS = itertools.count(1000)


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    register(engine, "gw-01", "gw-02")
    store = Store(engine, clock=lambda: NOW_MS / 1000 + 1)
    yield store
    store.close()


def count(engine: Engine, table: str = "reading") -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(metadata.tables[table]))


def marks(outcome: Outcome, device: str = "gw-01") -> dict[Stream, int]:
    return {mark.stream: mark.seq for mark in outcome.marks[device]}


def values(engine: Engine) -> list[float]:
    with engine.connect() as connection:
        return sorted(connection.scalars(select(reading.c.value)))


def test_a_batch_becomes_rows_and_a_mark(store: Store, engine: Engine) -> None:
    outcome = store.commit([arrival(telemetry(1, inferences=1)), arrival(events(1))])
    assert (outcome.stored, outcome.duplicates, outcome.refused) == (2, 0, 0)
    assert sorted(outcome.marks["gw-01"], key=lambda mark: mark.stream) == [
        Mark(EPOCH, Stream.EVENT, 1),
        Mark(EPOCH, Stream.TELEMETRY, 1),
    ]
    pressure, flow = query.readings(engine, "gw-01", "pressure", 0, NOW_MS * 2, 10) + query.readings(
        engine, "gw-01", "flow", 0, NOW_MS * 2, 10
    )
    assert (pressure.value, pressure.unit, pressure.time_ms) == (1000.0, "bar", NOW_MS)
    assert (flow.value, flow.unit, flow.time_ms) == (1001.0, "l/s", NOW_MS + 10)
    assert (flow.received_ms, flow.stored_ms) == (NOW_MS + 5, NOW_MS + 1000)
    assert [one.label for one in query.inferences(engine, "gw-01", 0, NOW_MS * 2, 10)] == ["normal"]
    assert [(one.text, one.figures) for one in query.events(engine, "default", 0, 0, 10)] == [
        ("leak 1", {"score": 0.9})
    ]


def test_what_comes_twice_is_stored_once_and_acknowledged_again(store: Store, engine: Engine) -> None:
    first = store.commit(arrivals([telemetry(1), telemetry(2)]))
    again = store.commit(arrivals([telemetry(2), telemetry(1), telemetry(1)]))
    assert count(engine) == 4
    assert again.duplicates == 3
    assert marks(first) == marks(again) == {Stream.TELEMETRY: 2}


def test_twice_within_one_transaction_is_stored_once(store: Store, engine: Engine) -> None:
    outcome = store.commit(arrivals([telemetry(1), telemetry(1), telemetry(2), telemetry(2)]))
    assert (outcome.stored, outcome.duplicates, count(engine)) == (2, 2, 4)


def test_a_hole_holds_the_mark_until_it_is_filled(store: Store, engine: Engine) -> None:
    assert marks(store.commit(arrivals([telemetry(1), telemetry(3), telemetry(4)]))) == {Stream.TELEMETRY: 1}
    assert query.streams(engine, "gw-01")[0].pending == ((3, 4),)
    assert marks(store.commit(arrivals([telemetry(2)]))) == {Stream.TELEMETRY: 4}
    assert query.streams(engine, "gw-01")[0].pending == ()
    assert count(engine) == 8


def test_what_was_committed_ahead_of_a_hole_is_not_doubled(store: Store, engine: Engine) -> None:
    store.commit(arrivals([telemetry(1), telemetry(3)]))
    outcome = store.commit(arrivals([telemetry(n) for n in (2, 3, 4)]))
    assert (outcome.stored, outcome.duplicates) == (2, 1)
    assert values(engine) == sorted(float(seq * 1000 + n) for seq in (1, 2, 3, 4) for n in (0, 1))


def test_a_batch_before_its_metrics_are_known_waits_unacknowledged(store: Store, engine: Engine) -> None:
    early = store.commit(arrivals([telemetry(2)]))
    assert (early.stored, early.postponed, marks(early)) == (0, 1, {Stream.TELEMETRY: 0})
    assert count(engine) == 0
    assert marks(store.commit(arrivals([telemetry(2), telemetry(1)]))) == {Stream.TELEMETRY: 2}
    assert count(engine) == 4


def test_streams_and_epochs_and_devices_number_by_themselves(store: Store, engine: Engine) -> None:
    other = "00000000000000e2"
    outcome = store.commit(
        [
            arrival(telemetry(1)), arrival(telemetry(2)), arrival(telemetry(1, other)),
            arrival(events(1)), arrival(telemetry(1), "gw-02"),
        ]
    )  # fmt: skip
    assert outcome.stored == 5
    assert {(mark.epoch, mark.stream, mark.seq) for mark in outcome.marks["gw-01"]} == {
        (EPOCH, Stream.TELEMETRY, 2), (other, Stream.TELEMETRY, 1), (EPOCH, Stream.EVENT, 1),
    }  # fmt: skip
    assert marks(outcome, "gw-02") == {Stream.TELEMETRY: 1}


def test_a_gap_moves_the_mark_and_tells_only_what_is_lost(store: Store, engine: Engine) -> None:
    store.commit(arrivals([telemetry(1), telemetry(2), telemetry(4)]))
    outcome = store.commit(arrivals([gap(2, 5, records=40), telemetry(6)]))
    assert marks(outcome) == {Stream.TELEMETRY: 6}
    (told,) = query.streams(engine, "gw-01")[0].gaps
    assert (told.first, told.last, told.batches, told.records, told.reason) == (3, 5, 2, 40, "quota")
    assert store.commit(arrivals([gap(2, 5, records=40), telemetry(3)])).duplicates == 2
    assert (count(engine), count(engine, "gap")) == (8, 1)


def test_a_gap_ahead_of_a_hole_waits_like_a_batch(store: Store, engine: Engine) -> None:
    outcome = store.commit(arrivals([telemetry(1), gap(3, 9)]))
    assert marks(outcome) == {Stream.TELEMETRY: 1}
    assert marks(store.commit(arrivals([telemetry(2)]))) == {Stream.TELEMETRY: 9}


def test_a_gap_brings_the_definitions_of_what_it_dropped(store: Store, engine: Engine) -> None:
    assert marks(store.commit(arrivals([gap(1, 3)]))) == {Stream.TELEMETRY: 3}
    store.commit(arrivals([telemetry(4)]))
    assert [one.metric for one in query.latest(engine, "gw-01")] == ["flow", "pressure"]


def test_a_metric_number_cannot_change_its_meaning(store: Store, engine: Engine) -> None:
    store.commit(arrivals([telemetry(1)]))
    liar = telemetry(2)
    liar.metrics.append(Metric(0, "temperature", "Cel"))
    outcome = store.commit([arrival(liar)])
    assert (outcome.refused, outcome.stored, count(engine)) == (1, 0, 2)
    assert query.refusals(engine)[0].device == "gw-01"


def test_an_unknown_device_is_refused_and_gets_no_acknowledgement(store: Store, engine: Engine) -> None:
    outcome = store.commit([arrival(telemetry(1), "stranger"), arrival(telemetry(1))])
    assert (outcome.refused, set(outcome.marks)) == (1, {"gw-01"})
    assert (query.refusals(engine)[0].device, query.refusals(engine)[0].count) == ("", 1)


def test_what_is_no_message_is_counted_and_kept_bounded(store: Store, engine: Engine) -> None:
    for _ in range(3):
        store.commit([arrival(b"\xc1" * 500, "gw-02") for _ in range(KEPT_REFUSALS // 2)])
    outcome = store.commit([arrival(b"", "gw-02"), arrival(telemetry(1), retain=True), arrival(telemetry(1))])
    assert (outcome.refused, outcome.stored) == (2, 1)
    told = {one.device: one.count for one in query.refusals(engine)}
    assert told == {"gw-02": KEPT_REFUSALS // 2 * 3 + 1, "gw-01": 1}
    assert count(engine, "refused_message") == KEPT_REFUSALS


@pytest.mark.parametrize(
    ("clock", "wall_ms", "sent", "time_ms", "state"),
    [
        (ClockState.TRUSTED, NOW_MS, None, NOW_MS, Placement.TRUSTED),
        (ClockState.TRUSTED, 0, None, NOW_MS + 5, Placement.QUARANTINED),
        (ClockState.TRUSTED, 4_070_908_800_000, None, NOW_MS + 5, Placement.QUARANTINED),
        (ClockState.UNTRUSTED, 0, f"{BOOT}:1005000", NOW_MS + 5 - 5000, Placement.REPAIRED),
        (ClockState.TRUSTED, 4_070_908_800_000, f"{BOOT}:1005000", NOW_MS + 5 - 5000, Placement.REPAIRED),
        (ClockState.UNTRUSTED, 0, "00000000000000ff:1005000", NOW_MS + 5, Placement.QUARANTINED),
    ],
)
def test_times_are_kept_repaired_or_quarantined(
    store: Store,
    engine: Engine,
    clock: ClockState,
    wall_ms: int,
    sent: str | None,
    time_ms: int,
    state: Placement,
) -> None:
    store.commit([arrival(telemetry(1, at=base(wall_ms, clock), readings=1, inferences=1), sent=sent)])
    for table in (reading, inference):
        with engine.connect() as connection:
            row = connection.execute(select(table.c.time_ms, table.c.clock_state)).one()
        assert tuple(row) == (time_ms, state)


def test_the_twin_keeps_the_last_word_and_its_version(store: Store, engine: Engine) -> None:
    online = Status(online=True, boot_id=BOOT, epoch=EPOCH, agent="1", wall_ms=NOW_MS)
    for _ in range(2):
        store.commit([arrival(online, channel=Channel.STATUS, retain=True)])
    gone = Status(online=False, boot_id=BOOT, epoch=EPOCH, agent="1", wall_ms=NOW_MS)
    will = arrival(gone, channel=Channel.STATUS, retain=True, received_ms=NOW_MS + 99_999)
    store.commit([will])
    twin, presence = metadata.tables["twin"], metadata.tables["presence"]
    with engine.connect() as connection:
        row = connection.execute(select(twin)).one()
        assert (row.half, row.version) == ("status", 2)
        assert '"online":false' in row.document
        assert connection.scalar(select(presence.c.heard_ms)) == NOW_MS + 5


def test_counts_agree_with_the_rows(store: Store, engine: Engine) -> None:
    store.commit(arrivals([telemetry(1, inferences=3), telemetry(3), gap(4, 6, records=9), events(1)]))
    totals = query.counts(engine, "default")
    assert (totals.readings, totals.inferences, totals.events) == (
        count(engine), count(engine, "inference"), count(engine, "event"),
    )  # fmt: skip
    assert (totals.devices, totals.lost_batches, totals.lost_records, totals.refused) == (2, 3, 9, 0)
    assert query.latency(engine, "default", 0) == query.Latency(4, 1000.0, 1000.0)


def test_two_ingests_racing_store_everything_once(engine: Engine, store: Store) -> None:
    batches = [telemetry(n) for n in range(1, 61)]

    def ingest(seed: int) -> None:
        mine = Store(engine)
        order = random.Random(seed).sample(batches, len(batches))
        for start in range(0, len(order), 7):
            mine.commit(arrivals(order[start : start + 7]))
        for batch in batches:
            mine.commit([arrival(batch)])
        mine.close()

    store.commit(arrivals(batches[:1]))
    racers = [threading.Thread(target=ingest, args=(seed,)) for seed in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert values(engine) == sorted(float(seq * 1000 + n) for seq in range(1, 61) for n in (0, 1))
    (flow,) = query.streams(engine, "gw-01")
    assert (flow.contiguous, flow.pending, flow.readings) == (60, (), 120)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(1, 12), max_size=40), cuts=st.integers(1, 6))
def test_any_order_and_any_repetition_stores_each_number_once(
    store: Store, engine: Engine, order: list[int], cuts: int
) -> None:
    name = f"{next(EPOCHS):016x}"
    before = count(engine)
    for start in range(0, len(order), cuts):
        part = [telemetry(n, name, define=True) for n in order[start : start + cuts]]
        outcome = store.commit(arrivals(part))
    if order:
        known = {stream.epoch: stream for stream in query.streams(engine, "gw-01")}[name]
        expected = next(n for n in range(14) if n + 1 not in order)
        assert known.contiguous == expected
        assert expected in [mark.seq for mark in outcome.marks["gw-01"]]
    assert count(engine) - before <= 2 * len(set(order))


def test_a_message_that_the_database_cannot_hold_is_refused_alone(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message of the protocol is known to do this; so one row is spoiled on its way to the database."""

    def spoiled(origin: Origin, batch: Events) -> list[Row]:
        made = event_rows(origin, batch)
        return [(None, *row[1:]) for row in made] if batch.seq == 2 else made

    monkeypatch.setattr("fleet_server.telemetry.transaction.event_rows", spoiled)
    outcome = store.commit(arrivals([events(1), events(2), events(3), telemetry(1)]))
    assert (outcome.stored, outcome.refused) == (3, 1)
    assert marks(outcome) == {Stream.EVENT: 1, Stream.TELEMETRY: 1}
    assert [one.text for one in query.events(engine, "default", 0, 0, 10)] == ["leak 1", "leak 3"]


def test_one_among_thousands_that_the_database_cannot_hold_is_refused_alone(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the middle of a statement of many rows, after another one that went well."""

    def spoiled(origin: Origin, batch: Telemetry, metrics: dict[int, int]) -> list[Row]:
        made = reading_rows(origin, batch, metrics)
        return [(None, *made[0][1:]), *made[1:]] if batch.seq == 31 else made

    monkeypatch.setattr("fleet_server.telemetry.transaction.reading_rows", spoiled)
    outcome = store.commit(arrivals([telemetry(seq, readings=50) for seq in range(1, 61)]))
    assert (outcome.stored, outcome.refused) == (59, 1)
    assert marks(outcome) == {Stream.TELEMETRY: 30}
    assert values(engine) == [seq * 1000.0 + n for seq in range(1, 61) if seq != 31 for n in range(50)]


def test_a_reading_with_an_odd_offset_is_quarantined_alone(store: Store, engine: Engine) -> None:
    batch = telemetry(1)
    batch.readings.append(Reading(0, 2**40, 7.0))
    store.commit([arrival(batch)])
    with engine.connect() as connection:
        states = connection.execute(select(reading.c.value, reading.c.clock_state)).all()
    assert sorted(map(tuple, states)) == [
        (7.0, Placement.QUARANTINED),
        (1000.0, Placement.TRUSTED),
        (1001.0, Placement.TRUSTED),
    ]
