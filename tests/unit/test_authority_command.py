"""``fleet-server authority``: what each command does, what it refuses, and what it leaves in the audit."""

import json
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from sqlmodel import Session, col, select

from fleet_server.__main__ import main
from fleet_server.access.roles import Actor
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.config import Settings, load, save_settings
from fleet_server.database.engine import open_engine
from fleet_server.database.models import AuditRecord, Certificate
from fleet_server.identity.enrollment import Newcomer, enroll
from fleet_server.lock import locked
from tests.support.centre import make_centre, request_pem
from tests.support.security_module import PIN, SecurityModule

Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its exit code, and what it said on both channels."""

    def run(*arguments: str | Path) -> Said:
        code = main(["authority", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine, config = make_centre(tmp_path_factory.mktemp("template") / "data")
    engine.dispose()
    save_settings(config.data, Settings(mqtt_port=config.mqtt_port, api_port=config.api_port))
    return config.data


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    """The folder of a server that ran before."""
    return shutil.copytree(template, tmp_path / "data")


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    return path


def fleet(data: Path) -> Authority:
    return open_authority(data / "authority", may_make=False)


def add(data: Path, device: str) -> None:
    engine = open_engine(load(data).database_url)
    newcomer = Newcomer(device, "pi5", None, "", "added")
    enroll(engine, load(data), newcomer, request_pem(device), Actor.shell("test"))
    engine.dispose()


def audited(data: Path) -> list[str]:
    engine = open_engine(load(data).database_url)
    with Session(engine) as session:
        actions = session.exec(select(AuditRecord.action).order_by(col(AuditRecord.number))).all()
    engine.dispose()
    return [action for action in actions if action.startswith("authority.")]


def test_status_names_each_authority_its_end_and_its_key(run: Run, data: Path) -> None:
    code, said, _errors = run("status", "--data", data)
    authority = fleet(data)
    assert code == 0
    assert authority.fingerprint in said
    assert f"key root-{said[:12]}.key" in said
    assert f"until {authority.issuers[0].certificate.not_valid_after_utc:%Y-%m-%d}" in said
    found = json.loads(run("status", "--data", data, "--json")[1])
    assert [one["kind"] for one in found["authorities"]] == ["root", "issuing"]
    assert found["authorities"][1]["issued_by"] == found["authorities"][0]["id"]


def test_init_makes_what_serve_then_opens_and_never_a_second_one(run: Run, tmp_path: Path) -> None:
    assert run("init", "--data", tmp_path / "data")[0] == 0
    before = fleet(tmp_path / "data").fingerprint
    code, _said, errors = run("init", "--data", tmp_path / "data")
    assert (code, fleet(tmp_path / "data").fingerprint) == (1, before)
    assert "there is an authority in" in errors


def test_init_makes_no_new_authority_for_a_server_that_has_lost_its_own(run: Run, data: Path) -> None:
    (data / "authority").rename(data / "lost")
    code, _said, errors = run("init", "--data", data)
    assert code == 1
    assert "restore its authority" in errors
    assert not (data / "authority").exists()


def test_the_roots_key_moves_away_sealed_and_the_server_goes_on(
    run: Run, data: Path, tmp_path: Path, passphrase: Path
) -> None:
    (key_file,) = (data / "authority").glob("root-*.key")
    content = key_file.read_bytes()
    options = ("export-root", tmp_path / "stick", "--data", data, "--passphrase-file", passphrase)
    code, said, _errors = run(*options)
    assert code == 0
    assert not key_file.exists()
    (sealed,) = (tmp_path / "stick").iterdir()
    assert str(sealed) in said
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert content.splitlines()[1] not in sealed.read_bytes()
    add(data, "gw-01")
    assert "not on this machine" in run("status", "--data", data)[1]
    code, _said, errors = run(*options)
    assert (code, errors) == (1, "fleet-server: no root's key is on this machine\n")
    assert audited(data) == ["authority.export_root"]


def test_an_export_that_was_cut_short_is_gone_on_with(
    run: Run, data: Path, tmp_path: Path, passphrase: Path
) -> None:
    (key_file,) = (data / "authority").glob("root-*.key")
    content = key_file.read_bytes()
    options = ("export-root", tmp_path / "stick", "--data", data, "--passphrase-file", passphrase)
    run(*options)
    key_file.write_bytes(content)
    assert run(*options)[0] == 0
    assert not key_file.exists()


@pytest.mark.parametrize("there", ["another root", "garbage", "another passphrase"])
def test_a_key_that_cannot_be_read_back_is_not_removed(
    run: Run, data: Path, tmp_path: Path, passphrase: Path, there: str
) -> None:
    (key_file,) = (data / "authority").glob("root-*.key")
    stick = tmp_path / "stick"
    target = stick / f"{key_file.stem}.sealed"
    if there == "another root":
        run("init", "--data", tmp_path / "other")
        run("export-root", stick, "--data", tmp_path / "other", "--passphrase-file", passphrase)
        next(stick.iterdir()).rename(target)
    elif there == "another passphrase":
        run("export-root", stick, "--data", data, "--passphrase-file", passphrase)
        key_file.touch()
        key_file.write_bytes(b"")
        passphrase.write_text("wrong battery\n")
    else:
        stick.mkdir()
        target.write_bytes(b"garbage")
    code, _said, errors = run("export-root", stick, "--data", data, "--passphrase-file", passphrase)
    assert code == 1
    assert errors.count("\n") == 1
    assert key_file.exists()


@pytest.mark.parametrize(("text", "said"), [("short", "at least 8 characters"), (None, "cannot be read")])
def test_a_passphrase_that_is_none_removes_nothing(
    run: Run, data: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "weak"
    if text is not None:
        file.write_text(text)
    code, _said, errors = run("export-root", tmp_path / "stick", "--data", data, "--passphrase-file", file)
    assert code == 1
    assert said in errors
    assert list((data / "authority").glob("root-*.key"))
    assert audited(data) == []


def test_the_issuing_authority_is_renewed_where_the_roots_key_is(run: Run, data: Path) -> None:
    old = fleet(data).issuers[0].certificate
    code, said, _errors = run("renew-issuing", "--data", data)
    authority = fleet(data)
    assert code == 0
    assert "from the next start of the server on" in said
    assert authority.issuers[0].certificate == old
    assert authority.device_issuer.certificate == authority.issuers[1].certificate
    assert authority.crl_pem([]).count(b"BEGIN X509 CRL") == 2
    assert audited(data) == ["authority.renew_issuing"]


def test_an_offline_root_signs_a_request_on_its_own_machine(
    run: Run, data: Path, tmp_path: Path, passphrase: Path
) -> None:
    stick = tmp_path / "stick"
    sealed = ("--passphrase-file", passphrase)
    run("export-root", stick, "--data", data, *sealed)
    code, _said, errors = run("renew-issuing", "--data", data)
    assert code == 1
    assert "run 'fleet-server authority request-issuing'" in errors
    request, answer = tmp_path / "request.pem", tmp_path / "answer.pem"
    assert run("request-issuing", request, "--data", data)[0] == 0
    assert run("request-issuing", tmp_path / "again.pem", "--data", data)[0] == 0
    assert run("sign-issuing", tmp_path / "again.pem", "--root", stick, "--out", answer, *sealed)[0] == 0
    assert run("import-issuing", answer, "--data", data)[0] == 0
    authority = fleet(data)
    signed = x509.load_pem_x509_certificate(answer.read_bytes())
    assert authority.device_issuer.certificate == signed
    assert signed.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert run("import-issuing", answer, "--data", data)[0] == 0
    assert len(fleet(data).issuers) == 2
    assert not (data / "authority" / "request.json").exists()


def test_a_request_that_a_power_cut_left_behind_is_not_made_again(
    run: Run, data: Path, tmp_path: Path, passphrase: Path
) -> None:
    asked = data / "authority" / "request.json"
    request, answer, sealed = (
        tmp_path / "request.pem",
        tmp_path / "answer.pem",
        ("--passphrase-file", passphrase),
    )
    run("request-issuing", request, "--data", data)
    content = asked.read_bytes()
    run("export-root", tmp_path / "stick", "--data", data, *sealed)
    run("sign-issuing", request, "--root", tmp_path / "stick", "--out", answer, *sealed)
    run("import-issuing", answer, "--data", data)
    asked.write_bytes(content)
    run("request-issuing", tmp_path / "next.pem", "--data", data)
    first, second = (
        x509.load_pem_x509_csr(path.read_bytes()).public_key() for path in (request, tmp_path / "next.pem")
    )
    assert first != second


def test_an_answer_that_was_not_asked_for_is_refused(
    run: Run, data: Path, tmp_path: Path, passphrase: Path
) -> None:
    sealed = ("--passphrase-file", passphrase)
    run("init", "--data", tmp_path / "other")
    for place in (data, tmp_path / "other"):
        run("request-issuing", place / "request.pem", "--data", place)
        run("export-root", place / "stick", "--data", place, *sealed)
    answer = tmp_path / "answer.pem"
    run("sign-issuing", data / "request.pem", "--root", tmp_path / "other/stick", "--out", answer, *sealed)
    assert "did not sign it" in run("import-issuing", answer, "--data", data)[2]
    run("sign-issuing", tmp_path / "other/request.pem", "--root", data / "stick", "--out", answer, *sealed)
    assert "did not ask for it" in run("import-issuing", answer, "--data", data)[2]
    answer.write_text(request_pem("gw-01"))
    assert "not the signed issuing authority" in run("import-issuing", answer, "--data", data)[2]
    (tmp_path / "device.pem").write_text(request_pem("gw-01"))
    refused = run("sign-issuing", tmp_path / "device.pem", "--root", data / "stick", "--out", answer, *sealed)
    assert "names ['gw-01']" in refused[2]
    assert len(fleet(data).issuers) == 1


def test_nothing_changes_under_a_server_that_runs(run: Run, data: Path) -> None:
    before = (data / "authority" / "authority.json").read_bytes()
    with locked(data):
        for command in (("renew-issuing",), ("rollover", "begin"), ("rollover", "finish")):
            code, _said, errors = run(*command, "--data", data)
            assert code == 1
            assert "stop it" in errors
        assert run("status", "--data", data)[0] == 0
    assert (data / "authority" / "authority.json").read_bytes() == before
    assert audited(data) == []


def test_a_rollover_waits_for_every_device_and_then_forgets_the_old_root(run: Run, data: Path) -> None:
    add(data, "gw-1")
    add(data, "gw-2")
    old = fleet(data)
    assert run("rollover", "begin", "--data", data)[0] == 0
    both = fleet(data)
    assert both.roots[0] == old.roots[0]
    assert both.pem == (data / "authority" / "ca.pem").read_bytes()
    assert both.device_issuer.certificate.issuer == both.roots[1].subject
    assert both.server_issuer.certificate == old.server_issuer.certificate
    assert both.fingerprint != old.fingerprint
    assert "under way already" in run("rollover", "begin", "--data", data)[2]

    add(data, "gw-3")
    renew(data, "gw-1")
    found = json.loads(run("rollover", "status", "--data", data, "--json")[1])
    assert found == {"is_rolling": True, "ready": ["gw-1", "gw-3"], "behind": ["gw-2"]}
    assert (
        "2 of 3 devices have the roots of now.\ngw-2 does not" in run("rollover", "status", "--data", data)[1]
    )
    code, _said, errors = run("rollover", "finish", "--data", data)
    assert code == 1
    assert "would be cut off: gw-2. Wait for them, or give --force" in errors
    assert fleet(data).roots == both.roots

    renew(data, "gw-2")
    assert run("rollover", "finish", "--data", data)[0] == 0
    new = fleet(data)
    assert new.roots == both.roots[1:]
    assert new.server_issuer.certificate == both.device_issuer.certificate
    assert len(list((data / "authority").glob("*.key"))) == 2
    assert "no rollover is under way" in run("rollover", "finish", "--data", data)[2]
    assert audited(data) == ["authority.rollover_begin", "authority.rollover_finish"]


def renew(data: Path, device: str) -> None:
    """What counts of a renewal here: a later certificate, given with the roots of now."""
    engine = open_engine(load(data).database_url)
    with Session(engine) as session:
        row = session.exec(select(Certificate).where(Certificate.device == device)).one()
        later = row.model_dump() | {"serial": secrets.token_hex(16), "trust_sha256": fleet(data).trust_sha256}
        session.add(Certificate(**later))
        session.commit()
    engine.dispose()


def test_devices_may_be_cut_off_by_force(run: Run, data: Path) -> None:
    add(data, "gw-1")
    run("rollover", "begin", "--data", data)
    assert run("rollover", "finish", "--data", data, "--force")[0] == 0
    assert len(fleet(data).roots) == 1


def test_a_power_cut_between_the_two_files_of_a_rollover_leaves_the_new_state(run: Run, data: Path) -> None:
    roots = data / "authority" / "ca.pem"
    before = roots.read_bytes()
    run("rollover", "begin", "--data", data)
    roots.write_bytes(before)
    assert len(fleet(data).roots) == 2
    assert json.loads(run("rollover", "status", "--data", data, "--json")[1])["is_rolling"]


def test_a_security_module_holds_each_issuing_key(
    run: Run, tmp_path: Path, security_module: SecurityModule
) -> None:
    data, pin = tmp_path / "data", ("--pin-file", security_module.pin_file)
    first, second = (str(security_module.make_key(f"command-{number}")) for number in (1, 2))
    assert run("init", "--data", data, "--issuing-key", first, *pin)[0] == 0
    assert "key pkcs11:token=fleet;object=command-1?" in run("status", "--data", data)[1]
    assert "name it with --issuing-key" in run("renew-issuing", "--data", data)[2]
    assert "make another key" in run("renew-issuing", "--data", data, "--issuing-key", first, *pin)[2]
    assert run("renew-issuing", "--data", data, "--issuing-key", second, *pin)[0] == 0
    assert len(fleet(data).issuers) == 2
    for path in data.rglob("*"):
        assert not path.is_file() or PIN not in path.read_text().replace("\n", " ").split()
