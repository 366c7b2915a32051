"""Keys in a security module: a real one in software signs, and whatever is wrong with it is told in words."""

import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.founding import make_authority
from fleet_server.authority.issuing import Revoked
from fleet_server.authority.security_module import open_module_key, parse_uri
from fleet_server.errors import AuthorityError
from fleet_signing import security_module as keys
from fleet_signing.key_uri import KeyUri
from fleet_signing.security_module import PIN_VARIABLE
from tests.support.centre import request_pem
from tests.support.security_module import MODULE, PIN, SecurityModule


@pytest.fixture(scope="module")
def uri(security_module: SecurityModule) -> KeyUri:
    return security_module.make_key("issuing")


@pytest.fixture
def fleet(tmp_path: Path, uri: KeyUri) -> Authority:
    make_authority(tmp_path / "authority", uri)
    return open_authority(tmp_path / "authority", may_make=False)


def test_it_signs_certificates_and_lists_and_no_key_lies_in_the_folder(
    tmp_path: Path, fleet: Authority
) -> None:
    certificate = fleet.issue_for_device("gw-01", request_pem("gw-01").encode(), 30)
    issuing = fleet.issuers[0].certificate
    certificate.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(fleet.roots[0])
    crl = x509.load_pem_x509_crl(fleet.crl_pem([Revoked(certificate.serial_number, 1, "")]))
    key = issuing.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    names = sorted(path.name for path in (tmp_path / "authority").iterdir())
    assert [name.split("-")[0] for name in names] == ["authority.json", "ca.pem", "root"]


def test_the_pin_is_written_nowhere(tmp_path: Path, fleet: Authority) -> None:
    assert fleet.issuers
    for path in (tmp_path / "authority").iterdir():
        assert PIN not in path.read_text()


def test_the_pin_may_come_from_the_environment(uri: KeyUri, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_sessions()
    without_file = KeyUri(uri.module, uri.token, uri.label, None)
    with pytest.raises(AuthorityError, match=f"--pin-file, or set {PIN_VARIABLE}"):
        open_module_key(without_file)
    monkeypatch.setenv(PIN_VARIABLE, PIN)
    assert open_module_key(without_file).public_key() == open_module_key(uri).public_key()


# The library's search says so once more when it is thrown away.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_session_that_the_module_has_forgotten_is_opened_anew(fleet: Authority) -> None:
    for session in keys._sessions.values():
        session.close()
    fleet.issue_for_device("gw-01", request_pem("gw-01").encode(), 30)


def test_threads_may_sign_at_once(fleet: Authority) -> None:
    request, made = request_pem("gw-01").encode(), []

    def sign() -> None:
        made.extend(fleet.issue_for_device("gw-01", request, 30) for _each in range(20))

    threads = [threading.Thread(target=sign) for _each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 80
    for certificate in made:
        certificate.verify_directly_issued_by(fleet.issuers[0].certificate)


def test_a_key_that_is_exchanged_behind_the_fleets_back_is_no_longer_its_key(
    tmp_path: Path, fleet: Authority, security_module: SecurityModule, uri: KeyUri
) -> None:
    assert fleet.issuers
    other = security_module.make_key("another")
    state = tmp_path / "authority" / "authority.json"
    state.write_text(state.read_text().replace("object=issuing", "object=another"))
    with pytest.raises(AuthorityError, match=r"object=another.* is not the key of its certificate"):
        open_authority(tmp_path / "authority", may_make=False)
    assert other.label == "another"


@pytest.mark.parametrize(
    ("module", "token", "label", "said"),
    [
        ("/nowhere.so", "fleet", "issuing", "/nowhere.so cannot be loaded"),
        (MODULE, "attic", "issuing", "no token 'attic'"),
        (MODULE, "fleet", "missing", "no such key pair.*--keypairgen.*--label missing"),
        (MODULE, "fleet", "p384", "it is not P-256"),
        (MODULE, "fleet", "rsa", "it is no elliptic curve key"),
        (MODULE, "fleet", "twice", "several keys 'twice'.*a label of its own"),
    ],
)
def test_what_is_missing_is_named(
    security_module: SecurityModule, uri: KeyUri, module: str, token: str, label: str, said: str
) -> None:
    kinds = {"p384": ["EC:secp384r1"], "rsa": ["rsa:2048"], "twice": ["EC:prime256v1"] * 2}
    for kind in kinds.get(label, []):
        security_module.make_key(label, kind)
    with pytest.raises(AuthorityError, match=said):
        open_module_key(KeyUri(module, token, label, uri.pin_file))


def test_a_wrong_pin_is_told_and_not_tried_again(security_module: SecurityModule, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("0000")
    wrong = KeyUri(MODULE, "other", "issuing", tmp_path / "pin")
    with pytest.raises(AuthorityError, match=r"token 'other' refuses the PIN of .*pin \(PinIncorrect\)"):
        open_module_key(wrong)
    with pytest.raises(AuthorityError, match="cannot be read"):
        open_module_key(KeyUri(MODULE, "other", "issuing", tmp_path / "nowhere"))


def test_a_key_does_nothing_but_sign(uri: KeyUri) -> None:
    key = open_module_key(uri)
    signature = key.sign(b"content", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(signature, b"content", ec.ECDSA(hashes.SHA256()))
    assert (key.key_size, key.curve.name) == (256, "secp256r1")
    with pytest.raises(TypeError):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TypeError):
        key.private_numbers()
    with pytest.raises(TypeError):
        key.exchange(ec.ECDH(), key.public_key())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pkcs11:token=a;object=b", "write pkcs11:token=TOKEN"),
        ("pkcs11:token=a?module-path=/m.so", "write pkcs11:token=TOKEN"),
        ("pkcs11:token=a;object=b?module-path=", "write pkcs11:token=TOKEN"),
        ("token=a;object=b?module-path=/m.so", "write pkcs11:token=TOKEN"),
        ("pkcs11:token=a;object=b;slot-id=0?module-path=/m.so", "'slot-id', which means nothing here"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-value=5678", "a PIN does not belong into a URI"),
    ],
)
def test_a_uri_that_says_too_little_or_too_much_is_refused(text: str, said: str) -> None:
    with pytest.raises(AuthorityError, match=said) as refused:
        parse_uri(text)
    assert "5678" not in str(refused.value)


def test_a_uri_is_read_as_it_is_written() -> None:
    uri = KeyUri("/usr/lib/a b.so", "Fleet; North", "issuing 2?&", Path("/etc/argan/pin"))
    assert parse_uri(str(uri)) == uri
    assert parse_uri("pkcs11:object=b;token=a?module-path=/m.so", Path("/pin")) == KeyUri(
        "/m.so", "a", "b", Path("/pin")
    )


def _forget_sessions() -> None:
    for session in keys._sessions.values():
        session.close()
    keys._sessions.clear()
