"""Enrollment by invitation: a real server, the real ``edge-agent enrol``, and whoever may stand between."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent import durable
from edge_agent.__main__ import main
from fleet_protocol.device_folder import fingerprints
from fleet_server.authority import rollover
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.providing import provide_server
from tests.support.agents import EnrolledAgent, recording, replay_section
from tests.support.enrolling import changed, enrol, invite, launch, ordered
from tests.support.fleet_server import ServerProcess, add, fleet
from tests.support.impostor import Impostor
from tests.support.waiting import free_port, wait_until

REFUSED, UNREACHABLE, UNTRUSTED = 8, 9, 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("fleet") / "data")
    try:
        server.start()
        yield server
    finally:
        server.end()


def serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes()).serial_number


def test_an_invited_device_delivers_its_first_reading(server: ServerProcess, tmp_path: Path) -> None:
    home = tmp_path / "gw-happy"
    token = invite(server, "gw-happy", "--site", "north")
    done = enrol("-", "--out", home, said=f"{token}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert (home / "key.pem").stat().st_mode & 0o777 == 0o600
    recording(home / "flow.csv", 5)
    agent = EnrolledAgent(home)
    agent.config.write_text(agent.config.read_text() + replay_section(Path("flow.csv")))
    agent.start()
    try:
        wait_until(
            lambda: server.get("/v1/devices/gw-happy/readings", metric="flow")["items"], "a reading is stored"
        )
    finally:
        agent.end()
    known = server.get("/v1/devices/gw-happy")["device"]
    assert (known["site"], known["profile"], known["state"]) == ("north", "simulated", "online")
    (invitation,) = ordered(server, "invitations", "gw-happy")
    assert (invitation["state"], invitation["invited_by"]) == ("used", "operator")


@pytest.mark.attack
def test_a_used_invitation_serves_the_same_key_again_and_no_other(
    server: ServerProcess, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(invite(server, "gw-replay"))
    home = tmp_path / "gw-replay"
    assert enrol("--token-file", token_file, "--out", home).returncode == 0
    before = serial(home)
    (home / "cert.pem").unlink()
    assert enrol("--token-file", token_file, "--out", home).returncode == 0
    assert serial(home) == before, "the same certificate, not one more"
    thief = enrol("--token-file", token_file, "--out", tmp_path / "thief")
    assert thief.returncode == REFUSED
    assert "used already, by another key" in thief.stderr
    assert not (tmp_path / "thief" / "cert.pem").exists()


@pytest.mark.attack
def test_a_withdrawn_an_expired_and_an_unknown_invitation(server: ServerProcess, tmp_path: Path) -> None:
    token = invite(server, "gw-late")
    unknown = enrol(changed(token, secret=b"?" * 32), "--out", tmp_path / "a")
    assert (unknown.returncode, "knows no such invitation" in unknown.stderr) == (REFUSED, True)
    with closing(sqlite3.connect(server.data / "fleet.db")) as database, database:
        database.execute(
            "UPDATE enrollment SET expires_ms = ? WHERE device = 'gw-late'", [time.time_ns() // 1_000_000]
        )
    expired = enrol(token, "--out", tmp_path / "b")
    assert (expired.returncode, "has expired" in expired.stderr) == (REFUSED, True)
    token = invite(server, "gw-late")
    name = next(each["id"] for each in ordered(server, "invitations", "gw-late") if each["state"] == "open")
    assert ordered(server, "uninvite", "gw-late", name)["state"] == "withdrawn"
    withdrawn = enrol(token, "--out", tmp_path / "c")
    assert (withdrawn.returncode, "was withdrawn" in withdrawn.stderr) == (REFUSED, True)
    done = fleet("device", "show", "gw-late", "--data", server.data)
    assert "there is no device" in done.stderr


@pytest.mark.attack
def test_another_fingerprint_than_the_servers(server: ServerProcess, tmp_path: Path) -> None:
    token = changed(invite(server, "gw-pin"), ca_sha256=b"\x11" * 32)
    done = enrol(token, "--out", tmp_path / "gw")
    assert done.returncode == UNTRUSTED
    assert "does not have the authority 1111" in done.stderr


@pytest.mark.attack
def test_a_man_in_the_middle_with_an_authority_of_his_own(server: ServerProcess, tmp_path: Path) -> None:
    mine = open_authority(tmp_path / "authority", may_make=True)
    with impostor(mine, tmp_path, mine.pem) as between:
        done = enrol(changed(invite(server, "gw-mitm"), address=between.address), "--out", tmp_path / "gw")
        assert done.returncode == UNTRUSTED
        assert [(method, path) for method, path, _body in between.heard] == [("GET", "/v1/enrollment/ca")]


@pytest.mark.attack
def test_a_man_in_the_middle_who_passes_on_the_true_authority(server: ServerProcess, tmp_path: Path) -> None:
    ca = Path(server.endpoints["ca"]).read_bytes()
    mine = open_authority(tmp_path / "authority", may_make=True)
    with impostor(mine, tmp_path, ca + mine.pem) as between:
        done = enrol(changed(invite(server, "gw-relay"), address=between.address), "--out", tmp_path / "gw")
        assert done.returncode == UNTRUSTED
        assert "no certificate that goes back to it" in done.stderr
        assert [method for method, _path, _body in between.heard] == ["GET"], "the secret was told to nobody"


@pytest.mark.attack
def test_a_device_of_the_fleet_in_the_middle(server: ServerProcess, tmp_path: Path) -> None:
    """Its certificate goes back to the true authority, but is no server's."""
    stolen = add(server, "gw-stolen", tmp_path / "stolen")
    ca = Path(server.endpoints["ca"]).read_bytes()
    with Impostor(stolen.certificate, stolen.key, ca) as between:
        done = enrol(changed(invite(server, "gw-lured"), address=between.address), "--out", tmp_path / "gw")
        assert done.returncode == UNTRUSTED
        assert [method for method, _path, _body in between.heard] == ["GET"]


@pytest.mark.attack
def test_the_true_server_under_another_name(server: ServerProcess, tmp_path: Path) -> None:
    port = server.endpoints["device_url"].rpartition(":")[2]
    done = enrol(changed(invite(server, "gw-name"), address=f"127.1:{port}"), "--out", tmp_path / "gw")
    assert done.returncode == UNTRUSTED
    assert "mismatch" in done.stderr


def test_a_server_that_is_not_there(server: ServerProcess, tmp_path: Path) -> None:
    token = changed(invite(server, "gw-far"), address=f"localhost:{free_port()}")
    done = enrol(token, "--out", tmp_path / "gw")
    assert done.returncode == UNREACHABLE
    assert "run the same command again" in done.stderr


def test_a_token_that_is_none_and_a_folder_that_is_taken(server: ServerProcess, tmp_path: Path) -> None:
    done = enrol("ARGAN1-HELLO", "--out", tmp_path / "gw")
    assert (done.returncode, "mistyped" in done.stderr) == (REFUSED, True)
    add(server, "gw-there", tmp_path / "there")
    done = enrol(invite(server, "gw-second"), "--out", tmp_path / "there")
    assert (done.returncode, "holds the device gw-there already" in done.stderr) == (REFUSED, True)
    assert enrol("--out", tmp_path / "gw").returncode == 2


def test_killed_while_it_waits_for_the_server_it_goes_on_with_its_key(
    server: ServerProcess, tmp_path: Path
) -> None:
    token, home = invite(server, "gw-killed"), tmp_path / "gw"
    listener = server.children()["device"]
    os.kill(listener.pid, signal.SIGSTOP)
    try:
        process = launch(token, "--out", home)
        wait_until((home / "key.pem").exists, "the key is made")
        process.kill()
        process.communicate()
    finally:
        os.kill(listener.pid, signal.SIGCONT)
    key = (home / "key.pem").read_bytes()
    assert enrol(token, "--out", home).returncode == 0
    assert (home / "key.pem").read_bytes() == key


@pytest.mark.parametrize("cut", range(4))
def test_cut_off_at_any_write_it_can_be_run_again(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    token, home = invite(server, f"gw-cut-{cut}"), tmp_path / "gw"
    real, left = durable.rename, [cut]

    def rename(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            main(["enrol", token, "--out", str(home)])
    assert not (home / "cert.pem").exists(), "the certificate is the seal"
    assert main(["enrol", token, "--out", str(home)]) == 0
    assert main(["check", "--config", str(home / "agent.toml")]) == 0


@pytest.mark.attack
def test_a_revoked_key_is_not_let_in_again_by_its_old_invitation(
    server: ServerProcess, tmp_path: Path
) -> None:
    token, home = invite(server, "gw-revoked"), tmp_path / "gw"
    assert enrol(token, "--out", home).returncode == 0
    with closing(sqlite3.connect(server.data / "fleet.db")) as database, database:
        database.execute(
            "UPDATE certificate SET revoked_ms = 1, revoked_reason = 'keyCompromise' "
            "WHERE device = 'gw-revoked'"
        )
    (home / "cert.pem").unlink()
    done = enrol(token, "--out", home)
    assert (done.returncode, "was revoked" in done.stderr) == (REFUSED, True)


def test_the_printed_token_comes_with_what_to_compare(server: ServerProcess) -> None:
    done = fleet("device", "invite", "gw-print", "--data", server.data)
    assert "edge-agent enrol ARGAN1-" in done.stdout
    (root,) = fingerprints(Path(server.endpoints["ca"]).read_text())
    assert root in done.stdout
    assert "█" not in done.stdout, "no drawing where nobody looks"


def test_while_the_root_is_exchanged_a_newcomer_trusts_both(server: ServerProcess, tmp_path: Path) -> None:
    """The last test here: servers still show certificates under the old root, devices get the new one's."""
    before = invite(server, "gw-before")
    rollover.begin(server.data / "authority", None)
    for name, token in (("gw-before", before), ("gw-after", invite(server, "gw-after"))):
        assert enrol(token, "--out", tmp_path / name).returncode == 0
        assert len(fingerprints((tmp_path / name / "ca.pem").read_text())) == 2
        assert main(["check", "--config", str(tmp_path / name / "agent.toml")]) == 0


def impostor(authority: Authority, folder: Path, ca: bytes) -> Impostor:
    """Somebody with a server certificate of ``authority`` for localhost."""
    provide_server(authority, folder / "impostor", "svc.device", "localhost")
    return Impostor(folder / "impostor" / "cert.pem", folder / "impostor" / "key.pem", ca)
