"""Ingest's transactions on PostgreSQL: psycopg, ``COPY`` for the many rows, row locks on the cursors."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Engine

from fleet_server.telemetry.rows import Row
from fleet_server.telemetry.writer import Lookups, Writer

_LOOKUPS: Final = Lookups(
    devices="SELECT id, tenant FROM device WHERE id IN (SELECT json_array_elements_text(?::json))",
    cursors=(
        "SELECT c.tenant, c.device, c.epoch, c.stream, c.id, c.contiguous"
        " FROM json_array_elements(?::json) AS k JOIN ingest_cursor AS c"
        " ON c.tenant = k->>0 AND c.device = k->>1 AND c.epoch = k->>2 AND c.stream = k->>3"
        " ORDER BY c.tenant, c.device, c.epoch, c.stream FOR UPDATE OF c"
    ),
    pending=(
        "SELECT cursor, first, last FROM pending_batch"
        " WHERE cursor IN (SELECT json_array_elements_text(?::json)::bigint) ORDER BY cursor, first"
    ),
    bindings=(
        "SELECT b.tenant, b.device, b.epoch, b.number, b.metric FROM json_array_elements(?::json) AS k"
        " JOIN metric_binding AS b ON b.tenant = k->>0 AND b.device = k->>1 AND b.epoch = k->>2"
    ),
    metrics=(
        "SELECT m.tenant, m.device, m.name, m.unit, m.kind, m.id FROM json_array_elements(?::json) AS k"
        " JOIN metric AS m ON m.tenant = k->>0 AND m.device = k->>1 AND m.name = k->>2"
        " AND m.unit = k->>3 AND m.kind = (k->>4)::smallint"
    ),
)

# What COPY is told of a column that is not a 64-bit integer.
_TYPES: Final = {
    "tenant": "text", "device": "text", "model": "text", "version": "text", "label": "text",
    "name": "text", "text": "text", "source": "text", "figures": "text", "reason": "text",
    "clock_state": "int2", "quality": "int2", "position": "int2", "severity": "int2",
    "value": "float8", "score": "float8", "confidence": "float8", "uncertain": "bool",
    "request": "text", "supersedes": "bool", "shadow": "bool",
}  # fmt: skip


class PostgresWriter(Writer):
    """One PostgreSQL connection; the lock on a cursor's row is what keeps two ingests apart."""

    lookups = _LOOKUPS

    def __init__(self, engine: Engine) -> None:
        self._pooled = engine.raw_connection()
        self._connection = cast("psycopg.Connection[Row]", self._pooled.driver_connection)
        self._cursor = self._connection.cursor()

    def begin(self) -> None:
        """Nothing: the driver begins with the first statement."""

    def commit(self) -> None:
        """Wait until the write-ahead log is on the disk (``synchronous_commit=on``)."""
        self._connection.commit()

    def rollback(self) -> None:
        """Undo what was begun."""
        with suppress(psycopg.Error):
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection instead of returning it to the pool: it may be broken."""
        with suppress(psycopg.Error):
            self._pooled.invalidate()

    def fetch(self, statement: str, keys: str) -> Iterable[Row]:
        """All rows."""
        return self._cursor.execute(cast("Any", statement.replace("?", "%s")), (keys,)).fetchall()

    def run(self, statement: str, rows: Sequence[Row]) -> None:
        """One prepared statement for all rows, in one pipeline."""
        if rows:
            self._cursor.executemany(cast("Any", statement.replace("?", "%s")), rows)

    def append(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """One binary COPY."""
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with self._cursor.copy(cast("Any", statement)) as copy:
            copy.set_types([_TYPES.get(column, "int8") for column in columns])
            for row in rows:
                copy.write_row(row)
