"""``fleet-server audit``: proving that the record of changes is whole, and carrying it elsewhere.

``verify`` ends with 0 where it is whole, 1 where something was found, 2 where it could not be checked.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.texts import _
from fleet_server.audit import sources as audit_sources
from fleet_server.audit.checkpoint_files import last_line, public_file, read_public
from fleet_server.audit.checkpoints import walk
from fleet_server.audit.verification import Finding, Report, verify
from fleet_server.config import SETTINGS_FILE, ServerConfig, load
from fleet_server.database.engine import open_engine
from fleet_server.errors import AuditError, ServerError, StoreError

WHOLE: Final = 0
BROKEN: Final = 1
UNCHECKED: Final = 2


def verify_chain(options: argparse.Namespace) -> int:
    """Say whether the record of changes is whole; the exit code."""
    try:
        report = _checked_export(options) if options.export else _checked_data(options)
    except ServerError as error:
        print(_("it could not be checked: {reason}").format(reason=error), file=sys.stderr)  # noqa: T201
        return UNCHECKED
    print(_json(report) if options.json else "\n".join(_lines(report)))  # noqa: T201 - it is a command's output
    return WHOLE if report.is_whole else BROKEN


def _checked_data(options: argparse.Namespace) -> Report:
    config = _configured(options.data)
    key = read_public(options.key or public_file(config))
    path = options.checkpoints or config.audit_checkpoints
    known = last_line(config.own_checkpoints)
    with (
        audit_sources.opened_checkpoints(path) as lines,
        _readable(config) as engine,
        closing(audit_sources.rows(engine, config.tenant)) as rows,
    ):
        return verify(rows, walk(lines, key, config.tenant, known))


def _checked_export(options: argparse.Namespace) -> Report:
    if options.checkpoints is None or options.key is None:
        raise AuditError(
            _("give --checkpoints FILE and --key PUB too: an export does not prove itself alone")
        )
    key = read_public(options.key)
    with (
        audit_sources.opened_checkpoints(options.checkpoints) as lines,
        audit_sources.opened_export(options.export) as (head, rows),
    ):
        known = head.checkpoint.encode() or None
        report = verify(rows, walk(lines, key, head.tenant, known))
    _hold_head(head, key, report)
    return report


def _hold_head(head: audit_sources.Head, key: str, report: Report) -> None:
    """Whether an export goes as far as its first line says, and is of the server that is meant."""
    if head.key != key:
        message = _("the export is of a server with another key")
        report.find(Finding("export.key", message, expected=key, found=head.key))
    end = report.last.number if report.last else 0
    if end != head.last:
        message = _("the export ends with record {end}, its first line says {last}: it was cut or added to")
        text = message.format(end=end, last=head.last)
        report.find(Finding("export.cut", text, end, expected=str(head.last), found=str(end)))


def export_chain(options: argparse.Namespace) -> None:
    """Write the record of changes to a file."""
    config = _configured(options.data)
    key, checkpoint = read_public(public_file(config)), last_line(config.own_checkpoints)
    with _readable(config) as engine:
        last = audit_sources.write_export(engine, config.tenant, key, checkpoint, options.out)
    print(_("{count} records are in {path}").format(count=last, path=options.out))  # noqa: T201


def _configured(data: Path) -> ServerConfig:
    """The server on ``data``; a folder without one is none, and stays as it is."""
    folder = data.resolve()
    if not (folder / SETTINGS_FILE).exists():
        raise AuditError(
            _("{folder} is no server's data folder; give the one of 'serve'").format(folder=folder)
        )
    return load(folder)


@contextmanager
def _readable(config: ServerConfig) -> Iterator[Engine]:
    url = make_url(config.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise StoreError(_("the database {path} is not there").format(path=url.database))
    engine = open_engine(config.database_url)
    try:
        yield engine
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        raise StoreError(_("the database cannot be read: {reason}").format(reason=reason)) from error
    finally:
        engine.dispose()


def _json(report: Report) -> str:
    content = {
        "whole": report.is_whole,
        "records": report.records,
        "last": report.last.number if report.last else 0,
        "last_sha256": report.last.sha256 if report.last else "",
        "checkpoints": report.checkpoints,
        "signed": report.signed,
        "findings": report.findings,
        "more": report.more,
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def _lines(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield _("BROKEN  {message}").format(message=finding.message)
        if finding.expected or finding.found:
            yield _("        expected {expected}, found {found}").format(
                expected=finding.expected or "-", found=finding.found or "-"
            )
    if report.more:
        yield _("        and {count} more").format(count=report.more)
    verdict = _("whole") if report.is_whole else _("NOT WHOLE")
    yield _("{verdict}: {records} records, {checkpoints} checkpoints that hold").format(
        verdict=verdict, records=report.records, checkpoints=report.checkpoints
    )
    if report.signed_ms is not None:
        yield _("signed up to record {number}, at {time}").format(
            number=report.signed, time=_time(report.signed_ms)
        )
    if report.unsigned_ms is not None and report.last is not None:
        yield _("not signed yet: the records behind it up to {last}, the first of {time}").format(
            last=report.last.number, time=_time(report.unsigned_ms)
        )


def _time(time_ms: int) -> str:
    """``time_ms`` in UTC; a record that was tampered with may claim any."""
    try:
        return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
