"""The fleet's authority: what it signs, what it refuses, and what it keeps."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.issuing import BACKDATED, Revoked
from fleet_server.authority.providing import provide_broker, provide_roots, provide_service
from fleet_server.errors import AuthorityError, CsrRefused


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


@pytest.mark.attack
def test_a_device_gets_its_id_and_nothing_else_of_its_request(fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"), 30)
    certificate.verify_directly_issued_by(fleet.device_issuer.certificate)
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


@pytest.mark.attack
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
        fleet.issue_for_device("gw-01", request_pem, 30)


@pytest.mark.attack
def test_a_request_whose_signature_was_changed_is_refused(fleet: Authority) -> None:
    der = bytearray(x509.load_pem_x509_csr(device_csr("gw-01")).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CsrRefused, match="not signed by its own key"):
        fleet.issue_for_device("gw-01", pem, 30)


@pytest.mark.attack
@pytest.mark.parametrize("device", ["svc.ingest-1", "GW-01", "", "a" * 64, "gw/01", "gw+", "gw-01\n"])
def test_no_certificate_for_what_is_no_device_id(fleet: Authority, device: str) -> None:
    with pytest.raises(CsrRefused, match="no device id"):
        fleet.issue_for_device(device, device_csr("gw-01"), 30)


@pytest.mark.attack
def test_no_service_certificate_for_a_device_id(fleet: Authority) -> None:
    with pytest.raises(AuthorityError, match="no service's name"):
        fleet.issue_for_service("gw-01", ec.generate_private_key(ec.SECP256R1()).public_key())


def test_keys_are_for_their_owner_alone(tmp_path: Path, fleet: Authority) -> None:
    provide_service(fleet, tmp_path / "svc.watch", "svc.watch")
    keys = [*(tmp_path / "authority").glob("*.key"), tmp_path / "svc.watch" / "key.pem"]
    assert len(keys) == 3
    for key in keys:
        assert key.stat().st_mode & 0o777 == 0o600
    for folder in (tmp_path / "authority", tmp_path / "svc.watch"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_restart_keeps_everything(tmp_path: Path, fleet: Authority) -> None:
    provide_service(fleet, tmp_path / "svc.watch", "svc.watch")
    provide_broker(fleet, tmp_path / "broker", "fleet.example", ())
    before = everything_but_lists(tmp_path)
    again = open_authority(tmp_path / "authority", may_make=False)
    provide_service(again, tmp_path / "svc.watch", "svc.watch")
    provide_broker(again, tmp_path / "broker", "fleet.example", ())
    assert everything_but_lists(tmp_path) == before


def everything_but_lists(folder: Path) -> dict[Path, bytes]:
    """The lists of the revoked are dated, so they are made anew each time."""
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "crl.pem"
    }


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
        provide_broker(fleet, tmp_path / "broker", host, ())
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
    certificate, issuing = x509.load_pem_x509_certificates((tmp_path / "svc.watch" / "cert.pem").read_bytes())
    certificate.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(fleet.roots[0])


@pytest.mark.parametrize("file", ["issuing-*.key", "authority.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "another's"])
def test_a_damaged_authority_says_what_to_do_and_is_never_replaced(
    tmp_path: Path, fleet: Authority, file: str, damage: str
) -> None:
    (path,) = (tmp_path / "authority").glob(file)
    if damage == "missing":
        path.unlink()
    elif damage == "another's":
        open_authority(tmp_path / "other", may_make=True)
        (other,) = (tmp_path / "other").glob(file)
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x00garbage")
    with pytest.raises(AuthorityError, match="restore the folder from a backup"):
        open_authority(tmp_path / "authority", may_make=True)


def test_an_authority_of_the_old_layout_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "authority").mkdir()
    (tmp_path / "authority" / "ca.key").touch()
    (tmp_path / "authority" / "ca.pem").touch()
    with pytest.raises(AuthorityError, match=r"older version.*add every device again"):
        open_authority(tmp_path / "authority", may_make=True)


def test_roots_that_a_power_cut_kept_from_being_written_are_written_at_the_next_start(
    tmp_path: Path, fleet: Authority
) -> None:
    roots = tmp_path / "authority" / "ca.pem"
    before = roots.read_bytes()
    roots.unlink()
    provide_roots(open_authority(tmp_path / "authority", may_make=False), roots)
    assert roots.read_bytes() == before == fleet.pem


def test_a_lost_authority_is_not_made_again_behind_the_fleets_back(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="restore the folder"):
        open_authority(tmp_path / "authority", may_make=False)
    assert not (tmp_path / "authority").exists()


def test_the_lists_name_the_revoked_of_every_issuing_authority_with_their_reason(fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"), 30)
    text = fleet.crl_pem(
        [Revoked(certificate.serial_number, 1_700_000_000_000, "keyCompromise"), Revoked(5, 1, "")]
    )
    crl = x509.load_pem_x509_crl(text)
    assert text.count(b"BEGIN X509 CRL") == len(fleet.issuers) == 1
    issuing = fleet.issuers[0].certificate
    key = issuing.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    assert crl.issuer == issuing.subject
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    assert entry is not None
    assert entry.revocation_date_utc.timestamp() == 1_700_000_000
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    other = crl.get_revoked_certificate_by_serial_number(5)
    assert other is not None
    assert list(other.extensions) == []
    ends = crl.next_update_utc
    assert ends is not None
    assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)


def test_a_later_list_has_a_higher_number(fleet: Authority) -> None:
    first, second = (x509.load_pem_x509_crl(fleet.crl_pem([])) for _each in range(2))
    numbers = [
        crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)
    ]
    assert numbers[0] < numbers[1]


def test_a_passing_certificate_is_a_devices_for_minutes(fleet: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    certificate = fleet.issue_passing("gw-01", key, 2)
    assert certificate.subject == name((NameOID.COMMON_NAME, "gw-01"))
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=1) < left <= timedelta(minutes=2)
    with pytest.raises(CsrRefused, match="no device id"):
        fleet.issue_passing("svc.ingest-1", key, 2)


def test_nobodys_certificate_lasts_longer_than_its_issuers(fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"), 10_000)
    assert certificate.not_valid_after_utc == fleet.issuers[0].certificate.not_valid_after_utc
    assert fleet.issuers[0].certificate.not_valid_after_utc < fleet.roots[0].not_valid_after_utc


def test_a_chain_is_given_for_the_fleets_own_alone(tmp_path: Path, fleet: Authority) -> None:
    certificate = fleet.issue_for_device("gw-01", device_csr("gw-01"), 30)
    chain = x509.load_pem_x509_certificates(fleet.chain(certificate))
    assert chain == [certificate, fleet.issuers[0].certificate]
    with pytest.raises(AuthorityError, match="not signed by an issuing authority"):
        open_authority(tmp_path / "other", may_make=True).chain(certificate)


def test_openssl_takes_the_chain(tmp_path: Path, fleet: Authority) -> None:
    provide_broker(fleet, tmp_path / "broker", "localhost", ())
    context = ssl.create_default_context(cafile=str(tmp_path / "authority" / "ca.pem"))
    context.load_cert_chain(tmp_path / "broker" / "cert.pem", tmp_path / "broker" / "key.pem")
    assert context.get_ca_certs()
