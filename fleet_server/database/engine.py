"""Reaching the database: one way to open it, with the durability that acknowledgement rests on.

SQLite runs in write-ahead mode with ``synchronous=FULL``; PostgreSQL with ``synchronous_commit=on``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.errors import StoreError

BUSY_S: Final = 10.0
"""How long a writer waits for SQLite's only write lock; ingest holds it for milliseconds at a time."""

CONNECT_S: Final = 5
"""How long to wait for PostgreSQL to answer before the database counts as down."""

_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    # Pages of the log before they are copied home, 32 MiB: the newest ones are written over many times.
    "wal_autocheckpoint=8000",
    # KiB, negative to say so: what one transaction of ingest touches, so that none is spilled and read again.
    "cache_size=-16384",
)


def open_engine(url: str) -> Engine:
    """An engine for ``url``: ``sqlite:///PATH`` or ``postgresql://…``.

    Raises:
        StoreError: another kind of database.
    """
    parsed = make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed)
        case "postgresql":
            return _open_postgresql(parsed)
        case other:
            raise StoreError(
                _("database {kind!r} is not known; use sqlite:///PATH or postgresql://…").format(kind=other)
            )


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session that commits at its end, and holds SQLite's write lock from its beginning.

    A SQLite transaction that reads first and writes later fails at once where another one has
    written in between; taking the lock first makes it wait instead.
    """
    with Session(engine.execution_options(write_first=True)) as session, session.begin():
        yield session


def _open_sqlite(url: URL) -> Engine:
    # An error's message goes into the log; what a statement was given may be secret.
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        first = connection.get_execution_options().get("write_first")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if first else "BEGIN")

    return engine


def _open_postgresql(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_S,
            "options": "-c synchronous_commit=on -c timezone=UTC",
            # A server that vanished without a word is noticed within seconds, not after hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )
