"""Ingest's transactions on SQLite: the raw driver, prepared statements, the write lock from the start."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Final

from sqlalchemy import Engine

from fleet_server.telemetry.rows import Row
from fleet_server.telemetry.writer import Lookups, Writer

ROWS_AT_ONCE: Final = 1000
"""Rows in one statement. Each statement gives the interpreter away and waits to get it back: a hundred
are noticeably slower. A thousand rows of any of our tables are within SQLite's limit of 32766 values."""

# CROSS JOIN keeps SQLite from looping over the table instead of over the keys.
_LOOKUPS: Final = Lookups(
    devices="SELECT id, tenant FROM device WHERE id IN (SELECT value FROM json_each(?))",
    cursors=(
        "SELECT c.tenant, c.device, c.epoch, c.stream, c.id, c.contiguous FROM json_each(?) AS k"
        " CROSS JOIN ingest_cursor AS c ON c.tenant = json_extract(k.value, '$[0]')"
        " AND c.device = json_extract(k.value, '$[1]') AND c.epoch = json_extract(k.value, '$[2]')"
        " AND c.stream = json_extract(k.value, '$[3]')"
    ),
    pending=(
        "SELECT cursor, first, last FROM pending_batch"
        " WHERE cursor IN (SELECT value FROM json_each(?)) ORDER BY cursor, first"
    ),
    bindings=(
        "SELECT b.tenant, b.device, b.epoch, b.number, b.metric FROM json_each(?) AS k"
        " CROSS JOIN metric_binding AS b ON b.tenant = json_extract(k.value, '$[0]')"
        " AND b.device = json_extract(k.value, '$[1]') AND b.epoch = json_extract(k.value, '$[2]')"
    ),
    metrics=(
        "SELECT m.tenant, m.device, m.name, m.unit, m.kind, m.id FROM json_each(?) AS k"
        " CROSS JOIN metric AS m ON m.tenant = json_extract(k.value, '$[0]')"
        " AND m.device = json_extract(k.value, '$[1]') AND m.name = json_extract(k.value, '$[2]')"
        " AND m.unit = json_extract(k.value, '$[3]') AND m.kind = json_extract(k.value, '$[4]')"
    ),
)


class SqliteWriter(Writer):
    """One SQLite connection; its write lock is what keeps two ingests apart."""

    lookups = _LOOKUPS

    def __init__(self, engine: Engine) -> None:
        self._pooled = engine.raw_connection()
        connection = self._pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)  # noqa: S101 - the engine's dialect says so
        self._connection = connection

    def begin(self) -> None:
        """Take the write lock."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Write the log through to the disk."""
        self._connection.commit()

    def rollback(self) -> None:
        """Undo what was begun."""
        with suppress(sqlite3.Error):
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection instead of returning it to the pool: it may be broken."""
        with suppress(sqlite3.Error):
            self._pooled.invalidate()

    def fetch(self, statement: str, keys: str) -> Iterable[Row]:
        """All rows."""
        return self._connection.execute(statement, (keys,)).fetchall()

    def run(self, statement: str, rows: Sequence[Row]) -> None:
        """One prepared statement for all rows."""
        self._connection.executemany(statement, rows)

    def append(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Many rows a statement; an error in any ends the transaction, and not only the statement."""
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        groups = [
            tuple(chain.from_iterable(rows[start : start + ROWS_AT_ONCE]))
            for start in range(0, whole, ROWS_AT_ONCE)
        ]
        self._connection.executemany(_insert(table, tuple(columns), ROWS_AT_ONCE), groups)
        self._connection.executemany(_insert(table, tuple(columns), 1), rows[whole:])


@cache
def _insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    # Stock conflict handling undoes the one statement, for which it copies every page that a statement of
    # many rows touches. Here an error ends the transaction anyway: that costs nothing beforehand.
    values = f"({', '.join('?' * len(columns))})"
    return f"INSERT OR ROLLBACK INTO {table} ({', '.join(columns)}) VALUES {', '.join([values] * rows)}"  # noqa: S608 - our own names
