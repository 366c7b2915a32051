"""The real broker while the fleet's authority changes: who gets in, and whom devices believe."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.authority import issuing_renewal, rollover
from fleet_server.authority.authority import open_authority
from fleet_server.authority.issuing import Revoked, make_crl
from fleet_server.clock import now, wall_ms
from fleet_server.link.mosquitto import WATCH
from tests.support.fleet_broker import FleetBroker, Identity, connack

IN, OUT = b"\x20", b""
NOBODY: tuple[Revoked, ...] = ()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FleetBroker]:
    broker = FleetBroker(tmp_path / "fleet")
    broker.start()
    yield broker
    broker.stop()


def restart(broker: FleetBroker, *revoked: Revoked) -> None:
    """As a restart of the server does it."""
    broker.stop()
    broker.provide(open_authority(broker.config.authority, may_make=False), revoked)
    broker.start()


def answer(broker: FleetBroker, device: Identity) -> bytes:
    return connack(broker, device.context())[:1]


def revoked(device: Identity) -> Revoked:
    certificate = x509.load_pem_x509_certificate(device.certificate.read_bytes())
    return Revoked(certificate.serial_number, wall_ms(), "keyCompromise")


def trusting(device: Identity, roots: Path) -> Identity:
    return Identity(device.name, device.certificate, device.key, roots)


def kept(broker: FleetBroker, name: str) -> Path:
    """What a device was given to trust, as it was then."""
    path = broker.folder / name
    path.write_bytes(broker.config.ca.read_bytes())
    return path


@pytest.mark.attack
def test_a_revoked_device_is_refused_and_its_neighbor_is_not(broker: FleetBroker) -> None:
    thief, neighbor = broker.device("gw-1"), broker.device("gw-2")
    assert (answer(broker, thief), answer(broker, neighbor)) == (IN, IN)
    restart(broker, revoked(thief))
    assert (answer(broker, thief), answer(broker, neighbor)) == (OUT, IN)


def test_devices_of_the_old_and_the_renewed_issuing_authority_get_in_until_they_are_revoked(
    broker: FleetBroker,
) -> None:
    before = broker.device("gw-1")
    broker.stop()
    issuing_renewal.renew_here(broker.config.authority, None)
    broker.start()
    restart(broker)
    after = broker.device("gw-2")
    assert (answer(broker, before), answer(broker, after)) == (IN, IN)
    for device, expected in ((before, (OUT, IN)), (after, (IN, OUT))):
        restart(broker, revoked(device))
        assert (answer(broker, before), answer(broker, after)) == expected


def test_a_rollover_cuts_nobody_off_who_learned_of_the_new_root(broker: FleetBroker) -> None:
    before = trusting(broker.device("gw-1"), kept(broker, "old-root.pem"))
    rollover.begin(broker.config.authority, None)
    restart(broker)
    after = trusting(broker.device("gw-2"), kept(broker, "both-roots.pem"))
    # Each of them also checks the broker: the one from before believes the old root alone.
    assert (answer(broker, before), answer(broker, after)) == (IN, IN)
    for device, expected in ((before, (OUT, IN)), (after, (IN, OUT))):
        restart(broker, revoked(device))
        assert (answer(broker, before), answer(broker, after)) == expected
    rollover.finish(broker.config.authority)
    restart(broker)
    assert answer(broker, after) == IN
    with pytest.raises(ssl.SSLCertVerificationError):
        answer(broker, before)
    blind = ssl.create_default_context(cafile=str(broker.config.ca))
    blind.load_cert_chain(before.certificate, before.key)
    assert connack(broker, blind) == OUT


def test_a_passing_certificate_gets_in_as_the_device(broker: FleetBroker) -> None:
    device = broker.device("gw-1")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = broker.authority.issue_passing("gw-1", key.public_key(), 1)
    passing = broker.write_identity("gw-1", key, broker.authority.chain(certificate))
    restart(broker, revoked(device))
    assert (answer(broker, device), answer(broker, passing)) == (OUT, IN)


def test_lists_that_leave_an_issuing_authority_out_or_have_expired_refuse_everybody(
    broker: FleetBroker, tmp_path: Path
) -> None:
    """Why the server writes them anew at each start, and long before their end."""
    watch = broker.service(WATCH)
    foreign = open_authority(tmp_path / "other", may_make=True).crl_pem(NOBODY)
    expired = make_crl(broker.authority.issuers[0], NOBODY, now() - timedelta(days=31))
    for lists in (foreign, expired.public_bytes(Encoding.PEM)):
        broker.stop()
        (broker.config.broker / "crl.pem").write_bytes(lists)
        broker.start()
        assert answer(broker, watch) == OUT
    restart(broker)
    assert answer(broker, watch) == IN
