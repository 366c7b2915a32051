"""Certificates that the server makes for itself for minutes, with keys that never touch a disk.

They make the broker do what it has no command for: end a session (:func:`evict`), and show that it
has read the newest list of the revoked (:class:`Canary`). Any broker that trusts the fleet's
authority and takes the certificate's name for the session will do.
"""

import os
import socket
import ssl
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_protocol.texts import _
from fleet_server.authority.authority import Authority
from fleet_server.authority.issuing import Revoked
from fleet_server.authority.key_files import key_pem
from fleet_server.config import ServerConfig
from fleet_server.errors import BrokerError
from fleet_server.link.mqtt import seize

EVICTING_MINUTES: Final = 5.0
"""A clock of the broker's that is a little off must not make it refuse."""

CANARY_MINUTES: Final = 60.0
"""Longer than an outside broker takes to fetch a list, mostly; then another one is made."""

ANSWER_S: Final = 5.0

_CANARY: Final = "canary"
_PINGREQ: Final = b"\xc0\x00"
_REVOKED: Final = "CERTIFICATE_REVOKED"


def evict(config: ServerConfig, authority: Authority, device: str) -> None:
    """End the session of ``device``, and with it its connection and what waits for it.

    Its last will is spoken. Nothing keeps it from coming again: that is the list of the revoked.

    Raises:
        BrokerError: the broker refuses.
        OSError: it cannot be reached.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue_passing(device, key.public_key(), EVICTING_MINUTES)
    seize(config.mqtt_host, config.mqtt_port, device, _context(config, authority, certificate, key))


class Canary:
    """A certificate that is made to be revoked: once the broker refuses it, it knows the list it is on.

    It speaks no MQTT, so that whoever should have its name keeps their session.
    """

    def __init__(self, config: ServerConfig, authority: Authority) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._host, self._port = config.mqtt_host, config.mqtt_port
        self._certificate = authority.issue_passing(_CANARY, key.public_key(), CANARY_MINUTES)
        self._context = _context(config, authority, self._certificate, key)

    def entry(self, now_ms: int) -> Revoked:
        """How it stands on a list."""
        return Revoked(self._certificate.serial_number, now_ms, "")

    def lives(self, now_ms: int) -> bool:
        """Whether it would be let in if it were not revoked."""
        return now_ms < self._certificate.not_valid_after_utc.timestamp() * 1000

    def is_refused(self) -> bool:
        """Whether the broker refuses it as revoked.

        Raises:
            OSError: the broker cannot be reached.
        """
        with socket.create_connection((self._host, self._port), ANSWER_S) as raw:
            try:
                with self._context.wrap_socket(raw, server_hostname=self._host) as link:
                    # TLS 1.3 says it only now. Who lets it in hangs up: this is no way to begin MQTT.
                    link.sendall(_PINGREQ)
                    link.recv(1)
            except ssl.SSLError as error:
                return _REVOKED in (error.reason or "")
            except ConnectionError:
                return False
        return False


def _context(
    config: ServerConfig, authority: Authority, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    """A client's context; the library takes keys from files alone, so it is given one in memory."""
    context = ssl.create_default_context(cafile=str(config.ca))
    descriptor = os.memfd_create(_CANARY, os.MFD_CLOEXEC)
    try:
        _write_all(descriptor, authority.chain(certificate) + key_pem(key))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise BrokerError(
            _("a certificate for minutes cannot be used: {reason}").format(reason=error)
        ) from error
    finally:
        os.close(descriptor)
    return context


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
