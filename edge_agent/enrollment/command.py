"""``edge-agent enrol``: the four ways in. Each can be run again after it was cut off, with the same key."""

import argparse
import sys
from pathlib import Path
from typing import Final

from edge_agent.enrollment import batch, stick
from edge_agent.enrollment.home import Home, open_home
from edge_agent.enrollment.serial import board_serial
from edge_agent.enrollment.server import Server
from edge_agent.errors import EnrollmentError
from fleet_protocol.device_folder import request_for
from fleet_protocol.enrollment import MAX_TOKEN, Application, Invitation, decode
from fleet_protocol.errors import ProtocolError
from fleet_protocol.texts import _

_STDIN: Final = "-"


def run(options: argparse.Namespace) -> int:
    """Carry out the way that was chosen; the exit code."""
    with open_home(options.out) as home:
        if options.request is not None:
            return _say(stick.write_request(home, options.request, options.device))
        if options.answer is not None:
            device = stick.take_answer(home, options.answer, options.ca_fingerprint)
        elif options.claim is not None:
            device = batch.enroll(home, options.claim, options.wait)
        else:
            device = _by_invitation(home, _token(options.token, options.token_file))
        return _say(
            _(
                "{device} is enrolled. Name its sensors in {config}, "
                "then run: edge-agent run --config {config}"
            ).format(device=device, config=home.configuration)
        )


def _by_invitation(home: Home, invitation: Invitation) -> str:
    device = home.device()
    if device is not None and device != invitation.device:
        raise EnrollmentError(
            _("{folder} holds the device {device} already; choose another folder with --out").format(
                folder=home.folder, device=device
            )
        )
    if device is None:
        key = home.provide_key()
        server = Server(invitation.url, invitation.ca_sha256.hex())
        application = Application(
            invitation.secret.hex(), request_for(invitation.device, key), board_serial()
        )
        home.move_in(server.apply(application), key)
    return invitation.device


def _token(given: str | None, file: Path | None) -> Invitation:
    try:
        if file is not None:
            text = file.read_text("ascii")
        else:
            # Through stdin it does not stand in the list of processes, nor in the shell's history.
            text = sys.stdin.read(4 * MAX_TOKEN) if given == _STDIN else str(given)
        return decode(text)
    except (OSError, ValueError) as error:
        if isinstance(error, ProtocolError):
            raise EnrollmentError(str(error)) from None
        raise EnrollmentError(_("the invitation cannot be read: {reason}").format(reason=error)) from None


def _say(line: str) -> int:
    sys.stdout.write(f"{line}\n")
    return 0
