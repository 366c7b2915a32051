"""Whether a chain of records is whole, and the one that was signed. Pure, in bounded memory.

Records come one by one, in the order of their numbers, and beside them the checkpoints. Every digest is
computed anew; what does not fit is a finding, and the rest is checked all the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from fleet_protocol.texts import _
from fleet_server.audit.chain import BEGINNING, digest_of
from fleet_server.audit.checkpoints import Fault, Signed

MOST_FINDINGS: Final = 20
"""Findings that are told one by one; more are counted. Whoever writes a chain anew breaks every record."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a record, as they are in the database and in an export."""

    tenant: str
    number: int
    time_ms: int
    person: str
    role: str
    source: str
    action: str
    subject: str
    before_sha256: str
    after_sha256: str
    detail: str
    previous_sha256: str
    sha256: str


FIELDS: Final = Record.__struct_fields__


class Link(NamedTuple):
    """What counts of a record: ``sha256`` is what it says of itself, ``digest`` what its content gives."""

    number: int
    time_ms: int
    previous_sha256: str
    sha256: str
    digest: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it has to be, in a record or in a line of the checkpoints."""

    kind: str
    message: str
    record: int | None = None
    line: int | None = None
    expected: str = ""
    found: str = ""


@dataclass(slots=True)
class Report:
    """What was read and found.

    ``signed`` is the last record that a checkpoint covers, ``unsigned_ms`` the time of the first behind it.
    """

    records: int = 0
    checkpoints: int = 0
    last: Link | None = None
    signed: int = 0
    signed_ms: int | None = None
    unsigned_ms: int | None = None
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def find(self, finding: Finding) -> None:
        """Put a finding down, or count it where there are enough."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.more += 1


def link_of(fields: Mapping[str, Any]) -> Link:
    """The link that a record's ``fields`` make.

    Raises:
        ValueError: they are not the fields of a record.
    """
    try:
        record = msgspec.convert(fields, Record)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    content = {name: value for name, value in fields.items() if name != "sha256"}
    return Link(record.number, record.time_ms, record.previous_sha256, record.sha256, digest_of(content))


def verify(rows: Iterable[Mapping[str, Any]], marks: Iterator[Signed | Fault]) -> Report:
    """Hold a chain against itself and against what was signed of it; both are read to their end."""
    report = Report()
    signed = _signed(marks, report)
    mark = next(signed, None)
    for row in rows:
        try:
            link = link_of(row)
        except ValueError as error:
            report.find(_no_record(report.last, error))
            continue
        _hold(link, report)
        report.records, report.last = report.records + 1, link
        while mark is not None and mark.checkpoint.number < link.number:
            mark = next(signed, None)  # that it is missing was found above
        if mark is not None and mark.checkpoint.number == link.number:
            _compare(link, mark, report)
            mark = next(signed, None)
        elif report.unsigned_ms is None:
            report.unsigned_ms = link.time_ms
    _ended(mark, signed, report)
    return report


def _signed(marks: Iterator[Signed | Fault], report: Report) -> Iterator[Signed]:
    """The checkpoints that hold; the others are found."""
    for mark in marks:
        if isinstance(mark, Fault):
            report.find(Finding(mark.kind, mark.message, None, mark.line, mark.expected, mark.found))
        else:
            report.checkpoints += 1
            yield mark


def _hold(link: Link, report: Report) -> None:
    """Hold a record against the one before it, and against what it says of itself."""
    last = report.last
    expected, previous = (last.number + 1, last.sha256) if last else (1, BEGINNING)
    if link.number > expected:
        report.find(_missing(expected, link.number - 1))
    elif link.number < expected:
        message = _("record {number} stands behind record {before}").format(
            number=link.number, before=expected - 1
        )
        report.find(Finding("record.order", message, link.number, None, str(expected), str(link.number)))
    elif link.previous_sha256 != previous:
        message = _(
            "record {number} does not follow record {before} as that is now: "
            "one of them was altered or replaced"
        ).format(number=link.number, before=expected - 1)
        report.find(Finding("record.previous", message, link.number, None, link.previous_sha256, previous))
    if link.digest != link.sha256:
        message = _("record {number} was altered: its content does not have its digest").format(
            number=link.number
        )
        report.find(Finding("record.altered", message, link.number, None, link.sha256, link.digest))


def _compare(link: Link, mark: Signed, report: Report) -> None:
    checkpoint = mark.checkpoint
    if link.sha256 == checkpoint.sha256:
        report.signed, report.signed_ms, report.unsigned_ms = link.number, checkpoint.time_ms, None
        return
    message = _(
        "record {number} is not the one that checkpoint {serial} has signed: "
        "the chain was written anew up to here"
    ).format(number=link.number, serial=checkpoint.serial)
    report.find(Finding("record.resigned", message, link.number, None, checkpoint.sha256, link.sha256))


def _ended(mark: Signed | None, signed: Iterator[Signed], report: Report) -> None:
    """Whether the chain goes as far as was ever signed."""
    if mark is None:
        return
    end = report.last.number if report.last else 0
    for later in signed:
        mark = later
    message = _(
        "the chain ends with record {end}, but checkpoint {serial} has signed record {number}: "
        "its end is missing"
    ).format(end=end, serial=mark.checkpoint.serial, number=mark.checkpoint.number)
    report.find(
        Finding("record.tail", message, mark.checkpoint.number, None, str(mark.checkpoint.number), str(end))
    )


def _missing(first: int, last: int) -> Finding:
    message = (
        _("record {first} is missing").format(first=first)
        if first == last
        else _("records {first} to {last} are missing").format(first=first, last=last)
    )
    return Finding("record.missing", message, first)


def _no_record(last: Link | None, error: ValueError) -> Finding:
    after = last.number if last else 0
    message = _("what stands behind record {after} is no record: {reason}").format(after=after, reason=error)
    return Finding("record.altered", message, after + 1)
