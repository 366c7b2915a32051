"""The three files that prove who this device is and whom it believes, checked before they are used.

Reads files; opens no connection. What is wrong is said here in words, because a TLS handshake
only says that it failed.
"""

import datetime as dt
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from edge_agent.config import Broker
from edge_agent.errors import IdentityError
from edge_agent.link.https import tls_context
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _


@dataclass(frozen=True, slots=True)
class Identity:
    """A checked identity: the device's name, the files, and until when the certificate lasts.

    ``serial`` is the certificate's number in hexadecimal. ``certificate`` is a file with the
    device's own first, followed by whoever issued it, up to a root in ``ca``.
    """

    device: str
    ca: Path
    certificate: Path
    key: Path
    not_before: dt.datetime
    not_after: dt.datetime
    serial: str

    @property
    def not_before_ms(self) -> int:
        """When it begins, in ms since 1970."""
        return int(self.not_before.timestamp() * 1000)

    @property
    def not_after_ms(self) -> int:
        """When it ends, in ms since 1970."""
        return int(self.not_after.timestamp() * 1000)

    def tls_context(self, clock: ClockState) -> ssl.SSLContext:
        """A client context for mutual TLS that trusts the roots in ``ca`` alone.

        With a clock that cannot be believed, validity dates are not looked at; everything else is.
        """
        context = tls_context(self.ca, check_dates=clock is ClockState.TRUSTED)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def date_problem(self, now_ms: int) -> str | None:
        """What is wrong with the certificate's dates at ``now_ms``; the broker will say it too."""
        now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
        if now > self.not_after:
            return _(
                "the certificate expired on {date:%Y-%m-%d}; "
                "the agent renews it while the server's grace lasts, after that enroll the device again"
            ).format(date=self.not_after)
        if now < self.not_before:
            return _("the certificate begins on {date:%Y-%m-%d}; check the clock").format(
                date=self.not_before
            )
        return None


def load_identity(device: str, broker: Broker) -> Identity:
    """The identity of ``device`` in the files that ``broker`` names.

    Raises:
        IdentityError: naming the file and what to do.
    """
    roots = _certificates(broker.ca)
    chain = _certificates(broker.certificate)
    _check_name(device, broker.certificate, chain[0])
    _check_key(broker.key, broker.certificate, chain[0])
    _check_chain(broker, chain, roots)
    certificate = chain[0]
    return Identity(
        device,
        broker.ca,
        broker.certificate,
        broker.key,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _serial(certificate),
    )


def serial_of(file: Path) -> str:
    """The number of the device's certificate in ``file``, in hexadecimal.

    Raises:
        IdentityError: there is none.
    """
    return _serial(_certificates(file)[0])


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise IdentityError(
            _("{file}: {reason}; enroll the device, or correct the path in [broker]").format(
                file=file, reason=error.strerror
            )
        ) from None


def _certificates(file: Path) -> list[x509.Certificate]:
    """At least one, in the order of the file."""
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError:
        raise IdentityError(
            _("{file} holds no PEM certificate; enroll the device again").format(file=file)
        ) from None


def _check_name(device: str, file: Path, certificate: x509.Certificate) -> None:
    names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device]:
        raise IdentityError(
            _("{file} is for {names}, not for {device}; correct 'device' or enroll this device").format(
                file=file, names=", ".join(names) or _("nobody"), device=device
            )
        )


def _check_key(file: Path, certificate_file: Path, certificate: x509.Certificate) -> None:
    content = _read(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise IdentityError(_("{file} can be read by others; run: chmod 600 {file}").format(file=file))
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        raise IdentityError(
            _("{file} holds no unencrypted PEM key; enroll the device again").format(file=file)
        ) from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise IdentityError(
            _("{key} is not the key of {certificate}; take both from the same enrollment").format(
                key=file, certificate=certificate_file
            )
        )


def _check_chain(
    broker: Broker, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> None:
    """See to it that each of ``chain`` was issued by the next, and the last by one of ``roots``."""
    if not all(_is_issued_by(lower, upper) for lower, upper in pairwise(chain)):
        raise IdentityError(
            _(
                "{certificate} holds certificates that do not follow from each other; "
                "take the whole file from the enrollment"
            ).format(certificate=broker.certificate)
        )
    if not any(_is_issued_by(chain[-1], root) for root in roots):
        raise IdentityError(
            _("{certificate} was not issued by {ca}; take both from the same enrollment").format(
                certificate=broker.certificate, ca=broker.ca
            )
        )


def _is_issued_by(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
