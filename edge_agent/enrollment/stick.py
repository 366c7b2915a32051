"""Enrollment without a network: a request is carried to the office, and its answer back.

Nobody vouches for what lies on a stick, so the answer's authority is shown for a person to compare.
"""

import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent import durable
from edge_agent.enrollment.home import Home
from edge_agent.enrollment.serial import board_serial
from edge_agent.errors import EnrollmentError, EnrollmentUntrusted
from fleet_protocol.device_folder import fingerprints, request_for
from fleet_protocol.enrollment import MAX_ANSWER, AnswerFile, Enrolled, RequestFile
from fleet_protocol.errors import ProtocolError
from fleet_protocol.texts import _
from fleet_protocol.topics import is_device_id

T = TypeVar("T")


def write_request(home: Home, file: Path, device: str | None) -> str:
    """Write the request of ``device`` to ``file``; what to do next.

    Raises:
        EnrollmentError: there is no such name, a device is here already, or the file cannot be written.
    """
    if device is None or not is_device_id(device):
        raise EnrollmentError(_("name the device with --device NAME; a name is 1 to 63 of a-z, 0-9 and '-'"))
    _require_empty(home)
    request = RequestFile(device, board_serial(), request_for(device, home.provide_key()))
    content = msgspec.json.format(msgspec.json.encode(request), indent=2)
    try:
        durable.write(file, content + b"\n")
    except OSError as error:
        raise EnrollmentError(
            _("{file} cannot be written: {reason}").format(file=file, reason=error.strerror)
        ) from None
    return _("{file} is written. Carry it to the office: fleet device answer {file} --out ANSWER").format(
        file=file
    )


def take_answer(home: Home, file: Path, expected: list[str] | None) -> str:
    """Take in the answer in ``file``, whose authorities are ``expected``; the device that it is for.

    Raises:
        EnrollmentError: it is no answer to the request that was made here.
        EnrollmentUntrusted: its authority is another one.
    """
    enrolled = read_file(file, AnswerFile).enrolled
    if home.device() != enrolled.device:
        _require_empty(home)
    try:
        found = fingerprints(enrolled.ca_pem)
    except ProtocolError as error:
        raise EnrollmentError(_("{file}: {reason}").format(file=file, reason=error)) from None
    _confirm(enrolled, found, expected)
    home.move_in(enrolled, home.provide_key())
    return enrolled.device


def read_file(file: Path, kind: type[T]) -> T:
    """``file``, JSON, as ``kind``.

    Raises:
        EnrollmentError: it cannot be read, or is something else.
    """
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(MAX_ANSWER), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise EnrollmentError(_("{file} cannot be used: {reason}").format(file=file, reason=error)) from None


def _require_empty(home: Home) -> None:
    device = home.device()
    if device is not None:
        raise EnrollmentError(
            _("{folder} holds the device {device} already; choose another folder with --out").format(
                folder=home.folder, device=device
            )
        )


def _confirm(enrolled: Enrolled, found: list[str], expected: list[str] | None) -> None:
    for one in found:
        sys.stderr.write(
            _("The authority that {device} will trust has the fingerprint\n  {fingerprint}\n").format(
                device=enrolled.device, fingerprint=one
            )
        )
    if expected is not None:
        # All of them: one that nobody compared would be trusted just as much.
        if {_plain(one) for one in expected} != set(found):
            raise EnrollmentUntrusted(
                _("the answer's authority is not the one given with --ca-fingerprint; nothing was taken in")
            )
    elif not sys.stdin.isatty():
        raise EnrollmentUntrusted(
            _("nobody is there to compare the fingerprint; give what the office says with --ca-fingerprint")
        )
    else:
        sys.stderr.write(_("Is it what the office says? [y/N] "))
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise EnrollmentUntrusted(_("the answer's authority was not confirmed; nothing was taken in"))


def _plain(fingerprint: str) -> str:
    return "".join(fingerprint.replace(":", " ").split()).lower()
