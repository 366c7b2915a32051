"""The agent's own certificate: it has to lead to one of the roots that the device trusts."""

from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.config import Broker
from edge_agent.errors import IdentityError
from edge_agent.identity.identity import Identity, load_identity
from fleet_protocol.messages import ClockState
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.issuing import pem
from fleet_server.authority.key_files import make_key_file
from tests.support.centre import request_pem


class Place:
    """A device's folder, filled as the fleet's authority does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.broker = Broker(
            host="localhost", ca=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem"
        )
        self.key = make_key_file(self.broker.key)

    def fill(self, fleet: Authority) -> x509.Certificate:
        certificate = fleet.issue_for_device("gw-01", request_pem("gw-01", self.key).encode(), 30)
        self.broker.certificate.write_bytes(fleet.chain(certificate))
        self.broker.ca.write_bytes(fleet.pem)
        return certificate

    def load(self) -> Identity:
        return load_identity("gw-01", self.broker)


@pytest.fixture
def fleet(tmp_path: Path) -> Authority:
    return open_authority(tmp_path / "authority", may_make=True)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return open_authority(tmp_path / "other", may_make=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "gw-01")


@pytest.mark.parametrize("clock", [ClockState.TRUSTED, ClockState.UNTRUSTED])
def test_a_chain_to_a_root_is_taken_and_its_dates_are_the_devices_own(
    fleet: Authority, place: Place, clock: ClockState
) -> None:
    certificate = place.fill(fleet)
    identity = place.load()
    assert identity.not_after == certificate.not_valid_after_utc
    context = identity.tls_context(clock)
    assert len(context.get_ca_certs()) == 1


def test_any_of_several_roots_will_do(fleet: Authority, other: Authority, place: Place) -> None:
    place.fill(fleet)
    for roots in (other.pem + fleet.pem, fleet.pem + other.pem):
        place.broker.ca.write_bytes(roots)
        assert len(place.load().tls_context(ClockState.TRUSTED).get_ca_certs()) == 2


def test_a_chain_to_no_root_of_the_device_is_told(fleet: Authority, other: Authority, place: Place) -> None:
    place.fill(fleet)
    place.broker.ca.write_bytes(other.pem)
    with pytest.raises(IdentityError, match=r"cert.pem was not issued by .*ca.pem; take both from the same"):
        place.load()


def test_a_certificate_without_its_issuer_is_told(fleet: Authority, place: Place) -> None:
    certificate = place.fill(fleet)
    place.broker.certificate.write_bytes(pem([certificate]))
    with pytest.raises(IdentityError, match=r"cert.pem was not issued by .*ca.pem"):
        place.load()


def test_certificates_that_do_not_follow_from_each_other_are_told(
    fleet: Authority, other: Authority, place: Place
) -> None:
    certificate = place.fill(fleet)
    place.broker.certificate.write_bytes(pem([certificate, other.issuers[0].certificate]))
    with pytest.raises(IdentityError, match="do not follow from each other; take the whole file"):
        place.load()


def test_the_devices_own_certificate_stands_first(fleet: Authority, place: Place) -> None:
    certificate = place.fill(fleet)
    place.broker.certificate.write_bytes(pem([fleet.issuers[0].certificate, certificate]))
    with pytest.raises(IdentityError, match=r"is for Argan fleet issuing authority .*, not for gw-01"):
        place.load()


def test_a_key_of_another_device_is_told(fleet: Authority, place: Place) -> None:
    place.fill(fleet)
    make_key_file(place.broker.key)
    with pytest.raises(IdentityError, match="is not the key of"):
        place.load()


@pytest.mark.parametrize("file", ["ca.pem", "cert.pem"])
def test_a_file_without_certificates_is_told(fleet: Authority, place: Place, file: str) -> None:
    place.fill(fleet)
    (place.folder / file).write_bytes(b"")
    with pytest.raises(IdentityError, match=f"{file} holds no PEM certificate"):
        place.load()
