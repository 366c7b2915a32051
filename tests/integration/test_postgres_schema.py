"""Tables and migrations on both databases, and PostgreSQL's daily partitions."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine, func, inspect, select, text

from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import Service, metadata, reading
from fleet_server.database.partitions import DAY_MS, drop_partitions_before, ensure_partitions
from fleet_server.database.schema import _config, differences, upgrade
from fleet_server.errors import StoreError
from fleet_server.telemetry.store import Store
from tests.support.batches import NOW_MS, arrivals, base, register, telemetry

TODAY = NOW_MS // DAY_MS * DAY_MS


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    assert differences(engine) == []


def test_upgrading_again_changes_nothing(engine: Engine) -> None:
    register(engine, "gw-01")
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(metadata.tables["device"])) == 1


def test_going_back_leaves_nothing(engine: Engine) -> None:
    ensure_partitions(engine, NOW_MS, 2)
    with engine.execution_options(write_first=True).begin() as connection:
        command.downgrade(_config(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


def test_every_table_carries_the_tenant(engine: Engine) -> None:
    of_the_installation = {"service", "server_health"}
    of_a_metric = {"reading"}  # whose metric has the tenant
    for name, table in metadata.tables.items():
        if name not in of_the_installation | of_a_metric | {"tenant"}:
            assert "tenant" in table.columns, name


def test_durability_is_what_the_acknowledgement_rests_on(engine: Engine) -> None:
    asked = (
        {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2, "PRAGMA foreign_keys": 1}
        if engine.dialect.name == "sqlite"
        else {"SHOW synchronous_commit": "on", "SHOW fsync": "on"}
    )
    with engine.connect() as connection:
        assert {question: connection.scalar(text(question)) for question in asked} == asked


def test_an_unknown_database_is_refused() -> None:
    with pytest.raises(StoreError, match="mysql"):
        open_engine("mysql://somewhere/db")


def test_a_writer_waits_for_another_one(engine: Engine) -> None:
    """Reading first and writing later must not fail because somebody else wrote in between."""
    barrier = threading.Barrier(4)

    def beat_often(number: int) -> None:
        barrier.wait()
        for turn in range(20):
            with writing(engine) as session:
                row = session.get(Service, "svc.x", with_for_update=True)
                if row is None:
                    session.merge(Service(name=f"svc.{number}", started_ms=0, beat_ms=turn))
                else:
                    row.beat_ms += 1

    with writing(engine) as session:
        session.add(Service(name="svc.x", started_ms=0, beat_ms=0))
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(beat_often, number) for number in range(4)]:
            done.result()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT beat_ms FROM service WHERE name = 'svc.x'")) == 80


def partitions(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        found = connection.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'reading'::regclass")
        )
        return set(found)


def stored_days(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted({time_ms // DAY_MS for time_ms in connection.scalars(select(reading.c.time_ms))})


def test_days_get_partitions_and_rows_move_into_them(engine: Engine) -> None:
    register(engine, "gw-01")
    store = Store(engine, clock=lambda: NOW_MS / 1000)
    days = [NOW_MS - back * DAY_MS for back in (0, 1, 5)]
    store.commit(arrivals([telemetry(n, at=base(day)) for n, day in enumerate(days, 1)]))
    ensure_partitions(engine, NOW_MS - DAY_MS, 3)
    ensure_partitions(engine, NOW_MS - DAY_MS, 3)
    store.commit(arrivals([telemetry(4, at=base(NOW_MS + 3 * DAY_MS))]))
    store.close()
    assert stored_days(engine) == [TODAY // DAY_MS - 5, TODAY // DAY_MS - 1, TODAY // DAY_MS]
    if engine.dialect.name == "postgresql":
        assert partitions(engine) == {
            "reading_default", "reading_20270114", "reading_20270115", "reading_20270116",
        }  # fmt: skip
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM reading_20270115")) == 4
            assert connection.scalar(text("SELECT count(*) FROM reading_default")) == 2
    assert differences(engine) == []


def test_old_days_end_and_newer_ones_stay(engine: Engine) -> None:
    register(engine, "gw-01")
    ensure_partitions(engine, NOW_MS - 3 * DAY_MS, 5)
    store = Store(engine, clock=lambda: NOW_MS / 1000)
    for number, back in enumerate((9, 3, 2, 1, 0), 1):
        store.commit(
            [one._replace(received_ms=NOW_MS - back * DAY_MS) for one in
             arrivals([telemetry(number, at=base(NOW_MS - back * DAY_MS), inferences=1)])]
        )  # fmt: skip
    store.close()
    drop_partitions_before(engine, NOW_MS - DAY_MS)
    assert stored_days(engine) == [TODAY // DAY_MS - 1, TODAY // DAY_MS]
    with engine.connect() as connection:
        rows = {
            name: connection.scalar(select(func.count()).select_from(metadata.tables[name]))
            for name in ("inference", "batch")
        }
    assert rows == {"inference": 2, "batch": 3}
    if engine.dialect.name == "postgresql":
        assert "reading_20270113" not in partitions(engine)


def test_partitions_can_be_made_while_ingest_writes(engine: Engine) -> None:
    register(engine, "gw-01")
    store = Store(engine)
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(ensure_partitions, engine, NOW_MS - 2 * DAY_MS, 4)
        for number in range(1, 101):
            store.commit(arrivals([telemetry(number)]))
        making.result()
    store.close()
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(reading)) == 200


def test_the_database_is_reached_by_its_plain_url(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'new.db'}")
    upgrade(engine)
    assert "reading" in inspect(engine).get_table_names()
    engine.dispose()
