"""Whose fault an error of the database is: a message's, which is refused, or its own, which is waited for."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.texts import _
from fleet_server.errors import ServerError, StoreError
from fleet_server.telemetry.sqlite_writer import SqliteWriter
from fleet_server.telemetry.writer import Writer

_OF_CONTENT: Final[list[type[BaseException]]] = [sqlite3.IntegrityError, sqlite3.DataError]
_OF_DATABASE: Final[list[type[BaseException]]] = [sqlite3.Error, SQLAlchemyError, OSError]


def open_writer(engine: Engine) -> Writer:
    """A writer for the engine's database. The PostgreSQL driver is an extra, and only loaded for it."""
    if engine.dialect.name == "sqlite":
        return SqliteWriter(engine)
    import psycopg

    from fleet_server.telemetry.postgres_writer import PostgresWriter

    if psycopg.Error not in _OF_DATABASE:
        _OF_DATABASE.append(psycopg.Error)
        _OF_CONTENT.extend((psycopg.IntegrityError, psycopg.DataError))
    return PostgresWriter(engine)


def is_of_message(error: BaseException) -> bool:
    """Whether a message's content is at fault, and would be again.

    That includes what nobody has foreseen: one odd message must cost itself, never the ingest.
    """
    if isinstance(error, tuple(_OF_CONTENT)):
        return True
    return isinstance(error, Exception) and not isinstance(error, (ServerError, *_OF_DATABASE))


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn the database's own faults into one error that says so.

    Raises:
        StoreError: connection, disk, lock or schema; what was being written was not.
    """
    try:
        yield
    except tuple(_OF_DATABASE) as error:
        if is_of_message(error):
            raise
        raise StoreError(
            _("the database cannot be written: {reason}").format(reason=str(error).strip()[:200])
        ) from error
