"""What a person can get wrong when starting the server: each is told, with what to do."""

import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fleet_server.__main__ import main
from fleet_server.errors import BrokerError
from fleet_server.link import mosquitto
from tests.support.fleet_server import ServerProcess

Complain = Callable[..., str]


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complain:
    """What a start says that must fail, with exit code 1, before there is any child to end."""

    def complain(data: Path, *options: str) -> str:
        before = psutil.Process().children()
        assert main(["serve", "--data", str(data), *options]) == 1
        assert not (data / "endpoints.json").exists()
        assert psutil.Process().children() == before
        return capsys.readouterr().err

    return complain


def test_a_postgresql_that_does_not_answer(complaint: Complain, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        said = complaint(
            tmp_path / "data", "--database-url", f"postgresql://argan:secret@127.0.0.1:{port}/fleet"
        )
    assert "cannot be used" in said
    assert "refused" in said
    assert "check that it runs" in said
    assert "secret" not in said


def test_a_database_that_is_not_there(complaint: Complain, tmp_path: Path) -> None:
    said = complaint(tmp_path / "data", "--database-url", f"sqlite:///{tmp_path / 'nowhere' / 'fleet.db'}")
    assert "check that it runs and that the URL is right" in said


def test_a_file_that_is_no_database(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_text("this is a letter, not a database, " * 100)
    said = complaint(tmp_path / "data", "--database-url", f"sqlite:///{tmp_path / 'fleet.db'}")
    assert "file is not a database" in said


@pytest.mark.parametrize("days", ["-1", "3651"])
def test_a_grace_that_is_none(complaint: Complain, tmp_path: Path, days: str) -> None:
    assert "use 0 to 3650" in complaint(tmp_path / "data", "--grace-days", days)


@pytest.mark.parametrize("url", ["mysql://host/fleet", "fleet.db", "postgres:/", ""])
def test_a_database_url_of_another_kind(complaint: Complain, tmp_path: Path, url: str) -> None:
    assert "is no database URL; use postgresql://" in complaint(tmp_path / "data", "--database-url", url)


@pytest.mark.parametrize(
    "url", ["mqtt://host:1883", "host", "mqtts://:8883", "mqtts://host:nan", "mqtts://h:99999"]
)
def test_a_broker_url_that_proves_nobody(complaint: Complain, tmp_path: Path, url: str) -> None:
    assert "is no broker URL; use mqtts://HOST" in complaint(tmp_path / "data", "--mqtt-url", url)


@pytest.mark.parametrize("option", ["--mqtt-port", "--api-port", "--device-port"])
def test_a_port_that_another_has(complaint: Complain, tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = complaint(tmp_path / "data", option, str(other.getsockname()[1]))
    assert "Address already in use" in said
    assert option in said


def test_a_port_that_is_none(complaint: Complain, tmp_path: Path) -> None:
    assert "70000 is no port" in complaint(tmp_path / "data", "--mqtt-port", "70000")


def test_an_address_of_another_machine(complaint: Complain, tmp_path: Path) -> None:
    assert "cannot listen on 192.0.2.1" in complaint(tmp_path / "data", "--api-host", "192.0.2.1")


def test_a_host_that_is_none(complaint: Complain, tmp_path: Path) -> None:
    assert "is no host" in complaint(tmp_path / "data", "--broker-host", "two words\nlistener 1")


def test_a_folder_that_cannot_be_made(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in complaint(tmp_path / "file" / "data")


def test_a_folder_that_is_not_ours(complaint: Complain, tmp_path: Path) -> None:
    said = complaint(Path("/proc/argan"))
    assert "/proc/argan cannot be written" in said


def test_settings_that_are_damaged(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text('{"mqtt_port": "many"}')
    said = complaint(tmp_path / "data")
    assert "server.json cannot be used" in said
    assert "correct it, or remove it" in said


def test_an_authority_that_is_damaged(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "data" / "authority").mkdir(parents=True)
    (tmp_path / "data" / "authority" / "ca.pem").write_text("garbage")
    said = complaint(tmp_path / "data")
    assert "restore the folder from a backup" in said


def test_an_authority_that_was_there_and_is_gone(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text("{}")
    assert "restore the folder from a backup" in complaint(tmp_path / "data")
    assert not (tmp_path / "data" / "authority").exists()


def test_a_broker_program_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mosquitto, "_SYSTEM_FOLDERS", (str(tmp_path),))
    with pytest.raises(BrokerError, match="sudo apt-get install mosquitto"):
        mosquitto.find_mosquitto()


def test_a_broker_program_is_found_where_users_do_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(mosquitto.find_mosquitto()).name == "mosquitto"


def test_a_broker_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    """A store that it cannot read makes mosquitto itself give up."""
    store = tmp_path / "data" / "broker" / "store"
    store.mkdir(parents=True)
    (store / "mosquitto.db").write_bytes(b"not a store of mosquitto's" * 10)
    server = ServerProcess(tmp_path / "data")
    server.launch()
    said = server.complaint()
    assert server.process is not None
    assert server.process.returncode == 1
    assert "mosquitto" in said
    assert "it said last:" in said
