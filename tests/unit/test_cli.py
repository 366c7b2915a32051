"""The ``fleet`` command: what it prints, what it leaves on disk, and its exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from edge_agent.config import load
from edge_agent.identity.identity import load_identity
from fleet_console import tables
from fleet_protocol.device_folder import skeleton
from fleet_protocol.enrollment import Enrolled
from fleet_protocol.messages import Severity
from fleet_server.database.engine import writing
from fleet_server.database.models import Event, IngestCursor
from fleet_server.database.service import SILENT_MS, beat
from fleet_server.guard import GUARD
from fleet_server.link.mosquitto import ESCALATION, INGEST, ROLLOUTS
from tests.support.centre import answering, make_centre, now_ms
from tests.support.fleet_server import fleet

Place = tuple[Engine, list[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server's database, and the options that lead to it."""
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    with answering(engine, config) as client:
        yield engine, ["--server", str(client.base_url), "--token-file", str(config.token)]
    engine.dispose()


def test_adding_a_device_leaves_what_an_agent_needs(place: Place, tmp_path: Path) -> None:
    done = fleet(
        "device", "add", "gw-add", "--profile", "raspberry-pi-5", "--out", tmp_path / "gw", *place[1]
    )
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "gw"
    assert sorted(path.name for path in folder.iterdir()) == ["agent.toml", "ca.pem", "cert.pem", "key.pem"]
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    config = load(folder / "agent.toml")
    assert (config.device, config.profile) == ("gw-add", "raspberry-pi-5")
    assert (config.broker.host, config.broker.port) == ("localhost", 8883)
    assert load_identity("gw-add", config.broker).device == "gw-add"


def test_the_examples_in_the_skeleton_are_ones_that_the_agent_takes(tmp_path: Path) -> None:
    urls = ("https://fleet.example:8443", "https://fleet.example:8443/v1/updates")
    text = skeleton(Enrolled("gw-01", 'pi "5"', "", "", "fleet.example", 8883, *urls, None, None), "")
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("# [[sensors]]"))
    keys = ("[", "kind", "name", "host", "port", "unit", "interval_s", "metric", "address", "table", "type",
            "path", "columns", "units", "folder", "policy")  # fmt: skip
    opened = [
        line[2:] if line.startswith("#") and line[2:].strip().startswith(keys) and n >= first else line
        for n, line in enumerate(lines)
    ]
    (tmp_path / "agent.toml").write_text("\n".join(opened))
    config = load(tmp_path / "agent.toml")
    assert [sensor.name for sensor in config.sensors] == ["cabinet", "last-spring"]
    assert config.sensors[0].metrics == ("pressure",)
    assert len(config.models) == 1
    assert config.server_url == "https://fleet.example:8443"


def test_a_folder_with_a_device_is_not_overwritten(place: Place, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "gw", *place[1])
    fleet("device", "add", "gw-once", *options)
    before = {path: path.read_bytes() for path in (tmp_path / "gw").iterdir()}
    done = fleet("device", "add", "gw-other", *options)
    assert done.returncode == 1
    assert "holds a device already" in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "gw").iterdir()} == before


def test_an_interrupted_addition_is_finished_by_the_same_command(place: Place, tmp_path: Path) -> None:
    """The server has registered it, but the answer was lost."""
    options = ("device", "add", "gw-again", "--out", tmp_path / "gw", *place[1])
    assert fleet(*options).returncode == 0
    key = (tmp_path / "gw" / "key.pem").read_bytes()
    (tmp_path / "gw" / "cert.pem").unlink()
    assert fleet(*options).returncode == 0
    assert (tmp_path / "gw" / "key.pem").read_bytes() == key
    assert (tmp_path / "gw" / "cert.pem").exists()


def test_a_name_that_is_taken_is_refused_with_the_next_step(place: Place, tmp_path: Path) -> None:
    fleet("device", "add", "gw-taken", "--out", tmp_path / "first", *place[1])
    done = fleet("device", "add", "gw-taken", "--out", tmp_path / "second", *place[1])
    assert done.returncode == 1
    assert "there is a device 'gw-taken' already. Choose another name" in done.stderr


def test_lists_are_tables_with_ages_or_json(place: Place, tmp_path: Path) -> None:
    fleet("device", "add", "gw-list", "--out", tmp_path / "gw", "--site", "cabinet-7", *place[1])
    text = fleet("device", "list", *place[1]).stdout
    heads, *rows = text.splitlines()
    assert heads.split() == ["DEVICE", "STATE", "HEARD", "PROFILE", "SITE", "HEALTH"]
    assert ["gw-list", "new", "-", "generic", "cabinet-7", "ok"] in [row.split() for row in rows]
    items = json.loads(fleet("device", "list", "--json", *place[1]).stdout)
    assert "gw-list" in {item["id"] for item in items}
    shown = json.loads(fleet("device", "show", "gw-list", "--json", *place[1]).stdout)
    assert shown["device"]["site"] == "cabinet-7"
    assert "site        cabinet-7" in fleet("device", "show", "gw-list", *place[1]).stdout


def test_events_are_the_newest_and_know_their_age(place: Place, tmp_path: Path) -> None:
    fleet("device", "add", "gw-event", "--out", tmp_path / "gw", *place[1])
    with writing(place[0]) as session:
        cursor = IngestCursor(
            tenant="default", device="gw-event", epoch="e1", stream="event", moved_ms=now_ms(),
            readings=0, inferences=0, events=0,
        )  # fmt: skip
        session.add(cursor)
        session.flush()
        for number in range(1200):
            session.add(
                Event(
                    tenant="default",
                    device="gw-event",
                    time_ms=now_ms() - 3_700_000,
                    name="leak",
                    severity=Severity.CRITICAL,
                    text=f"leak {number}",
                    source="policy",
                    figures="{}",
                    clock_state=0,
                    received_ms=1,
                    stored_ms=1,
                    cursor=cursor.id,
                    seq=number,
                )
            )
    text = fleet("event", "list", "--limit", "2", *place[1]).stdout.splitlines()
    assert len(text) == 3
    assert text[2].split() == ["1", "h", "gw-event", "critical", "leak", "leak", "1199"]
    assert fleet("event", "list", "--since", "30m", *place[1]).stdout.count("\n") == 1


def test_a_well_server_is_exit_0_and_one_with_something_critical_1(place: Place) -> None:
    beat(place[0], INGEST, 1, now_ms() - SILENT_MS - 1)
    done = fleet("health", *place[1])
    assert done.returncode == 1
    assert "CRITICAL  ingest.down" in done.stdout
    for service in (INGEST, ROLLOUTS, ESCALATION, GUARD):
        beat(place[0], service, 1, now_ms())
    done = fleet("health", *place[1])
    assert (done.returncode, done.stdout) == (0, "The server is well.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["device", "list"], 2, "which server?"),
        (["device", "list", "--server", "http://127.0.0.1:9", "--token-file", "/nowhere"], 2, "token"),
        (
            ["device", "list", "--server", "http://127.0.0.1:9", "--token-file", __file__],
            2,
            "holds no token",
        ),
        (["device", "list", "--data", "/nowhere"], 3, "fleet-server serve --data /nowhere"),
        (["device", "add", "GW 1", "--out", "/tmp/x", "--data", "/nowhere"], 2, "no device id"),
        (["device", "add", "gw-1"], 2, "--out"),
        (["event", "list", "--since", "tomorrow", "--data", "/nowhere"], 3, "no server runs"),
        (["explode"], 2, "explode"),
    ],
)
def test_exit_codes_and_complaints(arguments: list[str], code: int, said: str) -> None:
    done = fleet(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("some-token\n")
    done = fleet("health", "--server", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    assert done.returncode == 3
    assert "http://127.0.0.1:9 does not answer" in done.stderr


def test_a_wrong_token_and_a_wrong_time_are_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    done = fleet("device", "list", *place[1][:2], "--token-file", tmp_path / "token")
    assert done.returncode == 1
    assert "no valid token. Log in with" in done.stderr
    assert fleet("event", "list", "--since", "tomorrow", *place[1]).returncode == 2


def test_a_device_that_is_not_there(place: Place) -> None:
    done = fleet("device", "show", "gw-99", *place[1])
    assert done.returncode == 1
    assert "there is no device 'gw-99'. Look up" in done.stderr


@pytest.mark.parametrize(
    ("past_ms", "text"),
    [(0, "0 s"), (999, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (7_200_000, "2 h"), (259_200_000, "3 d"),
     (-5_000, "0 s")],
)  # fmt: skip
def test_an_age_is_in_its_largest_unit(past_ms: int, text: str) -> None:
    assert tables.age(1_000_000_000 - past_ms, 1_000_000_000) == text


def test_what_never_was_has_no_age() -> None:
    assert tables.age(None, 1) == "-"
