"""The fleet server as a device meets it that has no identity yet.

First it fetches the server's roots from whoever answers: they are public. The one whose digest is pinned
is all that it trusts from there on; what is secret is sent only over a connection that goes back to it.
"""

import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent.clock import Clock, boot_id
from edge_agent.errors import EnrollmentError, EnrollmentRefused, EnrollmentUnreachable, EnrollmentUntrusted
from edge_agent.link.https import FAILURES, Reply, ask, believing_anybody, connect, reason, trusting
from fleet_protocol.device_folder import fingerprints
from fleet_protocol.enrollment import (
    CA_PATH,
    CLAIMS_PATH,
    MAX_ANSWER,
    PREFIX,
    Application,
    ClaimAnswer,
    ClaimRequest,
    Enrolled,
    Problem,
)
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _

_MAX_CA: Final = 64 * 1024
"""Bytes of the roots: one of some 700, two while they are exchanged."""

T = TypeVar("T")


class Server:
    """The server at ``url`` that has proved to go back to the root with the digest ``ca_sha256``."""

    def __init__(self, url: str, ca_sha256: str) -> None:
        """Fetch the root.

        Raises:
            EnrollmentUnreachable: nobody answers.
            EnrollmentUntrusted: whoever answers does not have it.
        """
        self._url: Final = url
        self._pin: Final = ca_sha256
        reply = self._ask(believing_anybody(), "GET", CA_PATH, None, _MAX_CA)
        root = _pinned(reply.content, ca_sha256) if reply.status == HTTPStatus.OK else None
        if root is None:
            raise EnrollmentUntrusted(
                _(
                    "what answers at {url} does not have the authority {pin} that was pinned; nothing was "
                    "told to it. Either somebody stands between, or it is another server: ask whoever "
                    "invited this device, and compare the fingerprint"
                ).format(url=url, pin=ca_sha256)
            )
        # Nobody has told this device the time yet: unless a time service has, dates mean nothing.
        is_set = Clock(boot_id(), may_stop=True).state() is ClockState.TRUSTED
        self._context: Final = trusting(root, check_dates=is_set)

    def apply(self, application: Application) -> Enrolled:
        """Become the device that the server has invited.

        Raises:
            EnrollmentError: of the family that says why not.
        """
        enrolled = self._post(PREFIX, application, Enrolled)
        self._require_pinned(enrolled)
        return enrolled

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Ask, as a board of a factory batch, what was decided.

        Raises:
            EnrollmentError: of the family that says why not.
        """
        answer = self._post(CLAIMS_PATH, request, ClaimAnswer)
        if answer.enrolled is not None:
            self._require_pinned(answer.enrolled)
        return answer

    def _post(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        reply = self._ask(self._context, "POST", path, msgspec.json.encode(body), MAX_ANSWER)
        if reply.status == HTTPStatus.OK:
            return self._decoded(reply, lambda: msgspec.json.decode(reply.content, type=kind))
        problem = self._decoded(reply, lambda: msgspec.json.decode(reply.content, type=Problem))
        text = f"{problem.message.rstrip('.')}. {problem.next_step}"
        if reply.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            raise EnrollmentUnreachable(text)
        raise EnrollmentRefused(text)

    def _decoded(self, reply: Reply, decode: Callable[[], T]) -> T:
        try:
            return decode()
        except (msgspec.MsgspecError, ValueError):
            raise EnrollmentError(
                _("{url} answers {status} with something unknown; is the server of this version?").format(
                    url=self._url, status=reply.status
                )
            ) from None

    def _ask(self, context: ssl.SSLContext, method: str, path: str, body: bytes | None, most: int) -> Reply:
        connection = connect(self._url, context)
        try:
            return ask(connection, method, path, body, most)
        except ssl.SSLCertVerificationError as error:
            raise EnrollmentUntrusted(
                _(
                    "{url} has the authority's certificate but no certificate that goes back to it "
                    "({reason}); nothing was told to it. Somebody may stand between: ask whoever "
                    "runs the server"
                ).format(url=self._url, reason=error.verify_message)
            ) from None
        except FAILURES as error:
            raise EnrollmentUnreachable(
                _(
                    "{url} does not answer ({reason}); check the network, then run the same command again"
                ).format(url=self._url, reason=reason(error))
            ) from None
        finally:
            connection.close()

    def _require_pinned(self, enrolled: Enrolled) -> None:
        try:
            known = fingerprints(enrolled.ca_pem)
        except ProtocolError as error:
            raise EnrollmentError(_("the server gave no authority: {reason}").format(reason=error)) from None
        if self._pin not in known:
            raise EnrollmentUntrusted(_("the server gave another authority than it has itself"))


def _pinned(content: bytes, ca_sha256: str) -> str | None:
    """The one certificate in ``content`` with the digest ``ca_sha256``, in PEM."""
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        return None
    for certificate in found:
        if certificate.fingerprint(hashes.SHA256()).hex() == ca_sha256:
            return certificate.public_bytes(Encoding.PEM).decode()
    return None
