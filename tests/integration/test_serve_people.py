"""People at a real server: the first account, logging in from the command line, and what no log holds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet_server import ServerProcess, fleet
from tests.support.people import PASSWORD

OTHER = "another password of ann"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("people") / "data")
    server.start()
    yield server
    server.end()


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Somebody's environment: where they are logged in, and files with their passwords."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "new").write_text(OTHER + "\n")
    return {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "ARGAN_PASSWORD_FILE": str(tmp_path / "password"),
        "ARGAN_NEW_PASSWORD_FILE": str(tmp_path / "password"),
    }


def at(server: ServerProcess) -> tuple[str, ...]:
    return ("--server", server.endpoints["api_url"], "--ca", server.endpoints["api_ca"])


def done(*arguments: str | Path, environment: dict[str, str]) -> str:
    ran = fleet(*arguments, environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.attack
def test_from_the_first_account_to_a_narrow_token_and_no_secret_in_any_log(
    server: ServerProcess, home: dict[str, str], tmp_path: Path
) -> None:
    first = tmp_path / "first.token"
    add = ("person", "add", "ann", "--role", "admin", "--token-file", str(first))
    assert run_server(server, *add).returncode == 0
    assert first.stat().st_mode & 0o777 == 0o600
    with_first = (*at(server), "--token-file", first)
    people = json.loads(done("person", "list", "--json", *with_first, environment=home))
    assert [one["id"] for one in people] == ["ann", "operator"]
    done("person", "password", "ann", *with_first, environment=home)
    assert "You are ann" in done("login", "--name", "ann", *at(server), environment=home)
    (kept,) = (Path(home["XDG_CONFIG_HOME"]) / "argan").glob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    session = json.loads(kept.read_text())["token"]

    assert "ann" in done("person", "list", environment=home), "server and token are found"
    token = done("token", "create", "ci", "--role", "viewer", "--expires", "7d", environment=home).strip()
    assert "ci" in done("token", "list", environment=home)
    narrow = tmp_path / "ci.token"
    narrow.write_text(token)
    refused = fleet("person", "list", *at(server), "--token-file", narrow, environment=home)
    assert (refused.returncode, "people.manage" in refused.stderr) == (1, True)

    home["ARGAN_NEW_PASSWORD_FILE"] = str(tmp_path / "new")
    done("person", "password", environment=home)
    ended = fleet("person", "list", environment=home)
    assert (ended.returncode, "fleet login" in ended.stderr) == (1, True)
    wrong = fleet("login", "--name", "ann", *at(server), environment=home)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    home["ARGAN_PASSWORD_FILE"] = str(tmp_path / "new")
    done("login", "--name", "ann", *at(server), environment=home)
    second = json.loads(kept.read_text())["token"]
    assert "not logged in" in done("logout", environment=home)
    assert list(kept.parent.iterdir()) == []
    assert fleet("person", "list", environment=home).returncode == 2

    with server.client() as client:
        for path in ("/v1/session", "/v1/session/oidc"):
            client.post(path, json={"name": [PASSWORD], "password": OTHER, "id_token": session, "nonce": 7})
        headers = client.get("/v1/health").headers
        claimed = client.get("/v1/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert claimed.status_code == 200
    assert "server" not in headers
    assert headers["strict-transport-security"]
    local = Path(server.endpoints["token_file"]).read_text().strip()
    secrets = (PASSWORD, OTHER, session, second, token, local, first.read_text().strip(), "$argon2")
    written = [path for path in server.data.rglob("*") if path.suffix in {".log", ".json", ".conf"}]
    assert len(written) >= 8, "the logs of all services, and what they keep beside them"
    for path in written:
        text = path.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], path


def test_an_account_is_made_once_and_with_a_server_alone(server: ServerProcess, tmp_path: Path) -> None:
    assert run_server(server, "person", "add", "bob", "--role", "approver").returncode == 0
    token = tmp_path / "bob.token"
    again = run_server(server, "person", "add", "bob", "--role", "admin", "--token-file", str(token))
    assert (again.returncode, "there is a person 'bob' already" in again.stderr) == (1, True)
    assert not token.exists()
    token.write_text("something of value")
    kept = run_server(server, "person", "add", "eve", "--role", "viewer", "--token-file", str(token))
    assert (kept.returncode, "is there already" in kept.stderr) == (1, True)
    assert token.read_text() == "something of value"
    nowhere = run_server(server, "person", "add", "bob", "--role", "viewer", data=tmp_path / "none")
    assert (nowhere.returncode, "no server has run" in nowhere.stderr) == (1, True)
    for wrong in (
        ("Bob B.", "--role", "viewer"),
        ("bob", "--role", "king"),
        ("b", "--role", "viewer", "--site", "A"),
    ):
        assert run_server(server, "person", "add", *wrong).returncode == 2


def test_which_server_is_meant_has_to_be_clear(tmp_path: Path, server: ServerProcess) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    (tmp_path / "argan").mkdir()
    login = {"person": "ann", "token": "t", "expires_ms": 2**50, "has_ca": False}
    for number in (1, 2):
        one = login | {"url": f"https://city-{number}.example"}
        (tmp_path / "argan" / f"{number}.json").write_text(json.dumps(one))
    (tmp_path / "argan" / "3.json").write_text("garbage")
    (tmp_path / "argan" / "4.json").write_text(
        json.dumps(login | {"url": "https://old.example", "expires_ms": 1})
    )
    asked = fleet("device", "list", environment=home)
    assert (asked.returncode, "city-1.example, https://city-2.example" in asked.stderr) == (2, True)
    elsewhere = fleet("device", "list", "--server", "https://old.example", environment=home)
    assert (elsewhere.returncode, "not logged in at https://old.example" in elsewhere.stderr) == (2, True)
    clear = fleet("login", "--name", "ann", "--server", "http://192.0.2.1", environment=home)
    assert (clear.returncode, "is not https" in clear.stderr) == (2, True)


@pytest.mark.attack
def test_a_forwarded_address_is_not_believed(server: ServerProcess) -> None:
    """Otherwise whoever asks chooses whose budget it costs, and what the audit says."""
    with server.client() as client:
        tries = [
            client.post(
                "/v1/session", json={}, headers={"X-Forwarded-For": f"203.0.113.{number}"}
            ).status_code
            for number in range(25)
        ]
    assert 429 in tries


def run_server(
    server: ServerProcess, *arguments: str, data: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet_server", *arguments, "--data", str(data or server.data)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
