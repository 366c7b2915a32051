"""Daily partitions of ``reading`` and ``inference`` on PostgreSQL, and the end of old days.

A day that nobody made a partition for is kept in the default partition, so that no date, however
odd, can stop ingest. On SQLite there are no partitions; old days are deleted.
"""

import re
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, delete, text

from fleet_server.database.models import Batch, inference, reading

DAY_MS: Final = 86_400_000

PARTITIONED: Final = (reading, inference)

PARTITION_NAME: Final = re.compile(r"(?:reading|inference)_(?:default|\d{8})\Z")


def ensure_partitions(engine: Engine, first_ms: int, days: int) -> None:
    """Make the partitions of ``days`` days from the day of ``first_ms`` on; nothing on SQLite.

    Rows of such a day that already wait in the default partition move along.
    """
    if engine.dialect.name != "postgresql":
        return
    start = first_ms // DAY_MS * DAY_MS
    for table in PARTITIONED:
        for day in range(start, start + days * DAY_MS, DAY_MS):
            with engine.begin() as connection:
                _ensure(connection, table.name, day)


def drop_partitions_before(engine: Engine, time_ms: int) -> None:
    """End every day that is wholly before ``time_ms``: its readings, inferences, and their batches."""
    limit = time_ms // DAY_MS * DAY_MS
    for table in PARTITIONED:
        with engine.execution_options(write_first=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                _drop_before(connection, table.name, _name(table.name, limit))
            connection.execute(delete(table).where(table.c.time_ms < limit))
    batch = Batch.__table__  # type: ignore[attr-defined]
    with engine.execution_options(write_first=True).begin() as connection:
        # A record may be dated up to a day after its batch was received, never later.
        connection.execute(delete(batch).where(batch.c.received_ms < limit - DAY_MS))


def create_default(connection: Connection, table: str) -> None:
    """Make the partition that takes every day without one of its own."""
    connection.execute(text(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT"))


def _name(table: str, day_ms: int) -> str:
    return f"{table}_{datetime.fromtimestamp(day_ms / 1000, UTC):%Y%m%d}"


def _ensure(connection: Connection, table: str, day: int) -> None:
    name, end = _name(table, day), day + DAY_MS
    # Two processes that start at once must not make the same table.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('argan.partitions'))"))
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None:
        return
    # A writer must not be on its way into the default partition while its day moves out.
    connection.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
    connection.execute(
        text(
            f"WITH moved AS (DELETE FROM {table}_default WHERE time_ms >= :day AND time_ms < :end"  # noqa: S608
            f" RETURNING *) INSERT INTO {name} SELECT * FROM moved"
        ),
        {"day": day, "end": end},
    )
    connection.execute(
        text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({end})")
    )


def _drop_before(connection: Connection, table: str, limit: str) -> None:
    names = connection.scalars(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:table)"),
        {"table": table},
    )
    for name in sorted(names):
        if PARTITION_NAME.match(name) and not name.endswith("_default") and name < limit:
            connection.execute(text(f"DROP TABLE {name}"))
