"""The fleet's authority: what it signs, what it refuses, and what it keeps."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_server.errors import AuthorityError, CsrRefused
from fleet_server.link.authority import (
    BACKDATED,
    Authority,
    open_authority,
    provide_broker,
    provide_service,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Authority:
    return open_authority(tmp_path / "authority", may_make=True)


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def csr(subject: x509.Name, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("svc.ingest-1")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


def device_csr(device: str) -> bytes:
    return csr(name((NameOID.COMMON_NAME, device)))


def test_a_device_gets_its_id_and_nothing_else_of_its_request(fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"))
    certificate.verify_directly_issued_by(fleet.certificate)
    assert certificate.subject == name((NameOID.COMMON_NAME, "gw-01"))
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_device_certificate_lasts_the_documented_time(fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"), days=30)
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lasts == timedelta(days=30) + BACKDATED


@pytest.mark.parametrize(
    "request_pem",
    [
        pytest.param(device_csr("gw-02"), id="another device's name"),
        pytest.param(device_csr("svc.ingest-1"), id="a service's name"),
        pytest.param(csr(name()), id="no name"),
        pytest.param(
            csr(name((NameOID.COMMON_NAME, "gw-01"), (NameOID.COMMON_NAME, "svc.watch"))), id="two names"
        ),
        pytest.param(
            csr(name((NameOID.ORGANIZATION_NAME, "x"), (NameOID.COMMON_NAME, "gw-01"))), id="more than a name"
        ),
        pytest.param(
            csr(name((NameOID.COMMON_NAME, "gw-01")), ec.generate_private_key(ec.SECP384R1())), id="P-384"
        ),
        pytest.param(
            csr(name((NameOID.COMMON_NAME, "gw-01")), rsa.generate_private_key(65537, 2048)), id="RSA"
        ),
        pytest.param(b"", id="nothing"),
        pytest.param(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", id="cut off"),
        pytest.param(b"x" * 20_000, id="too large"),
    ],
)
def test_a_request_that_is_not_the_devices_own_is_refused(fleet: Authority, request_pem: bytes) -> None:
    with pytest.raises(CsrRefused):
        fleet.issue_for_device("gw-01", request_pem)


def test_a_request_whose_signature_was_changed_is_refused(fleet: Authority) -> None:
    der = bytearray(x509.load_pem_x509_csr(device_csr("gw-01")).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CsrRefused, match="not signed by its own key"):
        fleet.issue_for_device("gw-01", pem)


@pytest.mark.parametrize("device", ["svc.ingest-1", "GW-01", "", "a" * 64, "gw/01", "gw+", "gw-01\n"])
def test_no_certificate_for_what_is_no_device_id(fleet: Authority, device: str) -> None:
    with pytest.raises(CsrRefused, match="no device id"):
        fleet.issue_for_device(device, device_csr("gw-01"))


def test_no_service_certificate_for_a_device_id(fleet: Authority) -> None:
    with pytest.raises(AuthorityError, match="no service's name"):
        fleet.issue_for_service("gw-01", ec.generate_private_key(ec.SECP256R1()).public_key())


def test_keys_are_for_their_owner_alone(tmp_path: Path, fleet: Authority) -> None:
    provide_service(fleet, tmp_path / "svc.watch", "svc.watch")
    for key in (tmp_path / "authority" / "ca.key", tmp_path / "svc.watch" / "key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
    for folder in (tmp_path / "authority", tmp_path / "svc.watch"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_restart_keeps_everything(tmp_path: Path, fleet: Authority) -> None:
    provide_service(fleet, tmp_path / "svc.watch", "svc.watch")
    provide_broker(fleet, tmp_path / "broker", "fleet.example")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    again = open_authority(tmp_path / "authority", may_make=False)
    provide_service(again, tmp_path / "svc.watch", "svc.watch")
    provide_broker(again, tmp_path / "broker", "fleet.example")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_certificate_near_its_end_is_renewed_for_the_same_key(tmp_path: Path, fleet: Authority) -> None:
    folder = tmp_path / "svc.watch"
    provide_service(fleet, folder, "svc.watch")
    key_pem = (folder / "key.pem").read_bytes()
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    # An hour old and valid for none of the days: less than a third is left.
    old = fleet.issue_for_service("svc.watch", key.public_key(), days=0)
    (folder / "cert.pem").write_bytes(old.public_bytes(serialization.Encoding.PEM))
    provide_service(fleet, folder, "svc.watch")
    renewed = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert renewed.serial_number != old.serial_number
    assert renewed.not_valid_after_utc > old.not_valid_after_utc
    assert (folder / "key.pem").read_bytes() == key_pem


def test_a_new_broker_host_means_a_new_certificate(tmp_path: Path, fleet: Authority) -> None:
    names = []
    for host in ("localhost", "fleet.example", "10.0.0.5"):
        provide_broker(fleet, tmp_path / "broker", host)
        certificate = x509.load_pem_x509_certificate((tmp_path / "broker" / "cert.pem").read_bytes())
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names.append(
            {*san.get_values_for_type(x509.DNSName), *map(str, san.get_values_for_type(x509.IPAddress))}
        )
    always = {"localhost", "127.0.0.1", "::1"}
    assert names == [always, always | {"fleet.example"}, always | {"10.0.0.5"}]


def test_a_service_certificate_of_another_fleet_is_replaced(tmp_path: Path, fleet: Authority) -> None:
    other = open_authority(tmp_path / "other", may_make=True)
    provide_service(other, tmp_path / "svc.watch", "svc.watch")
    provide_service(fleet, tmp_path / "svc.watch", "svc.watch")
    certificate = x509.load_pem_x509_certificate((tmp_path / "svc.watch" / "cert.pem").read_bytes())
    certificate.verify_directly_issued_by(fleet.certificate)


@pytest.mark.parametrize("file", ["ca.key", "ca.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "another's"])
def test_a_damaged_authority_says_what_to_do_and_is_never_replaced(
    tmp_path: Path, fleet: Authority, file: str, damage: str
) -> None:
    path = tmp_path / "authority" / file
    if damage == "missing":
        path.unlink()
    elif damage == "another's":
        open_authority(tmp_path / "other", may_make=True)
        path.write_bytes((tmp_path / "other" / file).read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x00garbage")
    with pytest.raises(AuthorityError, match="restore the folder from a backup"):
        open_authority(tmp_path / "authority", may_make=True)


def test_a_lost_authority_is_not_made_again_behind_the_fleets_back(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="restore the folder"):
        open_authority(tmp_path / "authority", may_make=False)
    assert not (tmp_path / "authority").exists()


def test_openssl_takes_the_chain(tmp_path: Path, fleet: Authority) -> None:
    provide_broker(fleet, tmp_path / "broker", "localhost")
    context = ssl.create_default_context(cafile=str(tmp_path / "authority" / "ca.pem"))
    context.load_cert_chain(tmp_path / "broker" / "cert.pem", tmp_path / "broker" / "key.pem")
    assert context.get_ca_certs()
