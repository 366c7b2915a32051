"""A board of a factory batch: it asks with the batch's key, and waits until somebody has decided.

All that it keeps is its own key: the server knows the board by that, however often it is switched off.
"""

import secrets
import time
from pathlib import Path
from typing import Final

import jwt

from edge_agent.backoff import FullJitter
from edge_agent.enrollment.home import Home
from edge_agent.enrollment.serial import board_serial
from edge_agent.enrollment.server import Server
from edge_agent.enrollment.stick import read_file
from edge_agent.errors import (
    EnrollmentError,
    EnrollmentRefused,
    EnrollmentUnreachable,
    EnrollmentWaiting,
)
from fleet_protocol.device_folder import read_key, request_for
from fleet_protocol.enrollment import (
    STATEMENT_ALGORITHM,
    STATEMENT_TYPE,
    ClaimAnswer,
    ClaimFile,
    ClaimRequest,
    claim_name,
    request_sha256,
)
from fleet_protocol.errors import ProtocolError
from fleet_protocol.texts import _

_FIRST_WAIT_S: Final = 2.0
_LONGEST_WAIT_S: Final = 60.0
"""A bench of boards asks the server once a minute each, at random, not all at once."""


def enroll(home: Home, file: Path, wait_s: float) -> str:
    """Claim a place with the batch's key in ``file``, and wait ``wait_s`` seconds for it; which device it is.

    Raises:
        EnrollmentError: of the family that says why not.
    """
    device = home.device()
    if device is not None:
        return device
    claim, key = read_file(file, ClaimFile), home.provide_key()
    csr_pem = request_for(claim_name(claim.batch), key)
    request = ClaimRequest(claim.batch, csr_pem, state(claim, csr_pem, board_serial()))
    answer = _decided(claim, request, time.monotonic() + wait_s)
    if answer.state == "rejected":
        raise EnrollmentRefused(
            _("this board was rejected: {reason}. Ask whoever decided: fleet device pending").format(
                reason=answer.reason or _("no reason was given")
            )
        )
    if answer.enrolled is None:
        raise EnrollmentWaiting(
            _(
                "nobody has decided about claim {id} yet; at the office: "
                "fleet device approve {id} --as NAME. Run the same command again"
            ).format(id=answer.id)
        )
    home.move_in(answer.enrolled, key)
    return answer.enrolled.device


def state(claim: ClaimFile, csr_pem: str, serial: str) -> str:
    """The statement that a board ``serial`` of the batch asks with ``csr_pem``, signed by the batch's key.

    Raises:
        EnrollmentError: the batch's key cannot be used.
    """
    told = {
        "iss": claim_name(claim.batch),
        "sub": serial,
        "csr": request_sha256(csr_pem),
        "iat": int(time.time()),
        "jti": secrets.token_hex(16),
    }
    try:
        key = read_key(claim.key_pem.encode())
    except ProtocolError as error:
        raise EnrollmentError(_("the batch's key cannot be used: {reason}").format(reason=error)) from None
    return jwt.encode(told, key, STATEMENT_ALGORITHM, headers={"typ": STATEMENT_TYPE})


def _decided(claim: ClaimFile, request: ClaimRequest, deadline: float) -> ClaimAnswer:
    """The answer once there is a decision, or the last one before ``deadline``, of the monotonic clock."""
    backoff = FullJitter(_FIRST_WAIT_S, _LONGEST_WAIT_S)
    server: Server | None = None
    while True:
        left_s = deadline - time.monotonic()
        try:
            server = server or Server(claim.url, claim.ca_sha256)
            answer = server.claim(request)
        except EnrollmentUnreachable:
            if left_s <= 0:
                raise
        else:
            if answer.state != "waiting" or left_s <= 0:
                return answer
        time.sleep(min(backoff.next_s(), max(0.0, left_s)))
