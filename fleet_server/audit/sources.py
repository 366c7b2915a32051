"""Where a chain is read from for checking: a server's database, or an export that was carried elsewhere.

An export is lines of JSON: first a head with the public key, the number of the last record and the latest
checkpoint, then every record with all its fields. All of it is read and written bit by bit.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
from sqlalchemy import ColumnClause, Engine, column, select, table
from sqlmodel import Session, col, func
from sqlmodel import select as select_models

from fleet_protocol.texts import _
from fleet_server.audit.chain import canonical
from fleet_server.audit.checkpoints import MAX_LINE
from fleet_server.audit.verification import FIELDS
from fleet_server.database.models import AuditRecord
from fleet_server.errors import AuditError
from fleet_server.files import durable_file

_AT_ONCE: Final = 2_000
"""Rows that are fetched at a time."""

_MAX_RECORD: Final = 1024 * 1024
"""Bytes of a record's line; a longer one is not read into memory."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of an export.

    ``last`` is the number of its last record, ``checkpoint`` the line of the latest one, or empty.
    """

    format: Literal["argan-audit-1"]
    tenant: str
    key: str
    last: int
    checkpoint: str


def rows(engine: Engine, tenant: str, last: int | None = None) -> Generator[Mapping[str, Any]]:
    """The fields of every record of ``tenant`` as they are in the database, in turn, up to ``last``."""
    # Plain columns: whatever somebody has put into the table comes as it is.
    columns: list[ColumnClause[Any]] = [column(name) for name in FIELDS]
    query = select(*columns).select_from(table("audit_record")).where(column("tenant") == tenant)
    if last is not None:
        query = query.where(column("number") <= last)
    with engine.connect().execution_options(stream_results=True, yield_per=_AT_ONCE) as connection:
        for part in connection.execute(query.order_by(column("number"))).partitions():
            for row in part:
                yield dict(zip(FIELDS, row, strict=True))


def write_export(engine: Engine, tenant: str, key: str, checkpoint: bytes | None, out: Path) -> int:
    """Write the whole chain to ``out``, or nothing; the number of its last record.

    Raises:
        AuditError: ``out`` cannot be written.
    """
    with Session(engine) as session:
        last = session.exec(
            select_models(func.max(AuditRecord.number)).where(col(AuditRecord.tenant) == tenant)
        ).one()
    head = Head("argan-audit-1", tenant, key, last or 0, (checkpoint or b"").decode())
    with durable_file(out) as file:
        file.write(canonical(msgspec.to_builtins(head)).encode() + b"\n")
        for row in rows(engine, tenant, head.last):
            file.write(canonical(row).encode() + b"\n")
    return head.last


@contextmanager
def opened_export(path: Path) -> Iterator[tuple[Head, Iterator[Mapping[str, Any]]]]:
    """The head of an export and its records.

    Raises:
        AuditError: it cannot be read, or is no export.
    """
    with _opened(path) as file:
        try:
            head = msgspec.json.decode(file.readline(_MAX_RECORD), type=Head)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise AuditError(
                _("{path} is no export of the record of changes ({reason})").format(path=path, reason=error)
            ) from error
        yield head, _records(file)


@contextmanager
def opened_checkpoints(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a file of checkpoints, as far as it goes now.

    Opened before the chain is read: every one of them is of a record that is there already.

    Raises:
        AuditError: it cannot be read.
    """
    with _opened(path) as file:
        yield _lines(file, os.fstat(file.fileno()).st_size)


def _records(file: BinaryIO) -> Iterator[Mapping[str, Any]]:
    while line := file.readline(_MAX_RECORD):
        try:
            # A line that is cut off or too long is none either.
            yield msgspec.json.decode(line, type=dict[str, Any]) if line.endswith(b"\n") else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield {}


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    while file.tell() < size and (line := file.readline(MAX_LINE)):
        yield line


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise AuditError(
            _("{path} cannot be read ({reason})").format(path=path, reason=error.strerror)
        ) from error
    with file:
        yield file
