"""Groups and rollouts over HTTP and on the command line, without the process that moves them."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from sqlalchemy import Engine

from fleet_console.commands import rollout_text
from fleet_console.commands.durations import seconds
from fleet_console.commands.rollout_watch import _drawing
from fleet_console.sources.http import Answer
from fleet_protocol.messages import HealthReport
from fleet_protocol.targets import Kind
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Service
from fleet_server.database.service import SILENT_MS
from fleet_server.health import server_health
from fleet_server.link.mosquitto import ROLLOUTS
from tests.support.centre import answering, make_centre, now_ms
from tests.support.fleet_server import fleet
from tests.support.people import add_person
from tests.support.rollouts import add_fleet, move_on, publish, tell, update

Centre = tuple[Engine, ServerConfig]
ORDER = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "a better model"}


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    engine, config = make_centre(tmp_path / "data")
    add_fleet(engine, 4)
    publish(engine, 1, 2)
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: Centre) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        client.headers["X-Other"] = add_person(centre[0], "anna")
        client.put("/v1/groups/all", json={"filter": ""}).raise_for_status()
        yield client


def started(client: httpx.Client, **more: object) -> dict:
    answer = client.post("/v1/rollouts", json=ORDER | more)
    assert answer.status_code == 202, answer.text
    approve(client, answer.json())
    return client.get(f"/v1/rollouts/{answer.json()['proposal']['id']}").json()


def approve(client: httpx.Client, page: dict) -> None:
    """Another person agrees."""
    proposal = page["proposal"]
    answer = client.post(
        f"/v1/proposals/{proposal['id']}/approve",
        json={"sha256": proposal["sha256"]},
        headers={"Authorization": f"Bearer {client.headers['X-Other']}"},
    )
    assert (answer.status_code, answer.json()["proposal"]["state"]) == (200, "executed"), answer.text


def test_a_group_is_saved_and_listed(client: httpx.Client) -> None:
    saved = client.put("/v1/groups/half", json={"filter": "id=gw-*0 profile=simulated"}).json()
    assert (saved["name"], saved["devices"]) == ("half", 1)
    first = client.get("/v1/groups", params={"limit": 1}).json()
    assert [one["name"] for one in first["items"]] == ["all"]
    rest = client.get("/v1/groups", params={"limit": 5, "after": first["next_after"]}).json()
    assert ([one["name"] for one in rest["items"]], rest["next_after"]) == (["half"], None)


def test_a_rollout_from_its_start_to_its_end(client: httpx.Client, centre: Centre) -> None:
    page = started(client, waves=["1", "100%"])
    path = f"/v1/rollouts/{page['rollout']['id']}"
    assert page["rollout"]["counts"]["waiting"] == 4
    assert page["rollout"]["waves"] == ["1", "100%"]
    assert (page["rollout"]["asked_by"], page["rollout"]["approved_by"]) == ("operator", ["anna"])
    move_on(centre[0])
    (device,) = client.get(path).json()["waves"][0]["devices"]
    assert (device["state"], device["presence"], device["is_holding"]) == ("assigned", "new", True)
    assert client.post(f"{path}/pause").json()["rollout"]["state"] == "paused"
    approve(client, client.post(f"{path}/resume", json={"reason": "seen"}).json())
    assert client.get(path).json()["rollout"]["state"] == "running"
    ended = client.post(f"{path}/abort").json()
    assert (ended["rollout"]["state"], ended["rollout"]["counts"]["withdrawn"]) == ("aborted", 4)
    refused = client.post(f"{path}/resume", json={"reason": "again"})
    assert (refused.status_code, refused.json()["code"]) == (409, "rollout_conflict")
    assert client.get("/v1/rollouts").json()["items"] == [ended["rollout"]]


def test_what_a_device_reports_is_shown_while_it_goes_on(client: httpx.Client, centre: Centre) -> None:
    path = f"/v1/rollouts/{started(client)['rollout']['id']}"
    move_on(centre[0])
    tell(centre[0], "gw-00", update(2, "testing"))
    tell(centre[0], "gw-01", update(1, "failed"))
    shown = {one["id"]: one for one in client.get(path).json()["waves"][0]["devices"]}
    assert (shown["gw-00"]["update"], shown["gw-01"]["update"]) == ("testing", "")


def test_why_no_update_reaches_a_device_is_shown(client: httpx.Client, centre: Centre) -> None:
    path = f"/v1/rollouts/{started(client)['rollout']['id']}"
    move_on(centre[0])
    refused = HealthReport(code="update.refused", since_wall_ms=1, detail="director: expired")
    other = HealthReport(code="sensor.timeout", since_wall_ms=1, detail="cabinet")
    tell(centre[0], "gw-00", health=(other, refused))
    first = client.get(path).json()["waves"][0]["devices"][0]
    assert (first["state"], first["detail"]) == ("assigned", "update.refused: director: expired")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"group": "none"}, 404, "not_found"),
        ({"release": 7}, 404, "not_found"),
        ({"kind": "firmware"}, 422, "invalid"),
        ({"reason": ""}, 422, "invalid"),
        ({"waves": []}, 422, "invalid"),
        ({"waves": ["1%"] * 21}, 422, "invalid"),
        ({"waves": ["half"]}, 422, "bad_rules"),
        ({"waves": ["50%"]}, 422, "bad_rules"),
        ({"max_failures": -1}, 422, "invalid"),
        ({"soak_s": 10**9}, 422, "invalid"),
    ],
)
def test_a_bad_order_is_refused_and_starts_nothing(
    client: httpx.Client, change: dict, status: int, code: str
) -> None:
    answer = client.post("/v1/rollouts", json=ORDER | change)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["next_step"]
    assert client.get("/v1/rollouts").json()["items"] == []


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/v1/rollouts/none"), ("POST", "/v1/rollouts/none/abort"), ("GET", "/v1/rollouts?after=none"),
])  # fmt: skip
def test_a_rollout_that_is_not_there(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "fleet rollout list" in answer.json()["next_step"]


@pytest.mark.parametrize("path", ["/v1/groups/all", "/v1/rollouts/x/abort", "/v1/rollouts"])
def test_a_stranger_changes_nothing(client: httpx.Client, path: str) -> None:
    method = "PUT" if "groups" in path else "POST"
    assert client.request(method, path, headers={"Authorization": ""}, json={}).status_code == 401


def test_a_bad_filter_is_told_with_its_place(client: httpx.Client) -> None:
    answer = client.put("/v1/groups/bad", json={"filter": "site=x colour=red"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_filter")
    assert "at character 8" in answer.json()["message"]
    assert client.put("/v1/groups/Bad Name", json={"filter": ""}).status_code == 422


def test_a_rollouts_process_that_is_silent_is_told(centre: Centre) -> None:
    engine, _config = centre
    assert server_health(engine) == []
    with writing(engine) as session:
        session.merge(Service(name=ROLLOUTS, started_ms=1, beat_ms=now_ms() - SILENT_MS - 1))
    assert [item.code for item in server_health(engine)] == ["rollouts.down"]
    with writing(engine) as session:
        session.delete(session.get_one(Service, ROLLOUTS))
    assert [item.code for item in server_health(engine)] == ["rollouts.down"]


def test_the_command_line_tells_the_same(client: httpx.Client, centre: Centre) -> None:
    engine, config = centre
    where = ("--server", str(client.base_url), "--token-file", config.token)
    assert "all    4" in fleet("group", "list", *where).stdout
    asked = fleet("rollout", "start", "--group", "all", "--model", "leak", "--release", "2", "--wave", "100%",
                  "--max-failures", "4", "--reason", "better", *where)  # fmt: skip
    identity = asked.stdout.split(":")[0]
    assert f"{identity}: rollout.start, proposed" in asked.stdout
    assert "model leak: none × 4 → release 2 × 4" in asked.stdout
    assert f"fleet proposal approve {identity}" in asked.stdout
    assert fleet("proposal", "approve", identity, "--yes", *where).returncode == 1
    file = config.data / "anna.token"
    file.write_text(client.headers["X-Other"])
    other = ("--server", str(client.base_url), "--token-file", file)
    assert f"by typing {identity[-4:]}" in fleet("proposal", "approve", identity, *other).stderr
    assert "carried out" in fleet("proposal", "approve", identity, "--yes", *other).stdout
    assert f"{identity}: rollout.start, executed" in fleet("proposal", "show", identity, *where).stdout
    move_on(engine)
    tell(engine, "gw-00", update(2, "failed", refusal="wrong_hardware"))
    tell(engine, "gw-01", update(2, "committed", installed=2))
    move_on(engine)
    shown = fleet("rollout", "show", identity, *where).stdout
    assert "wrong_hardware: The artifact does not fit this device." in shown
    assert "[##########..........]  2/4  open  waits for gw-02, gw-03, not there" in shown
    assert json.loads(fleet("rollout", "list", "--json", *where).stdout)[0]["id"] == identity
    assert fleet("rollout", "abort", identity, "--yes", *where).returncode == 0
    watched = fleet("rollout", "watch", identity, *where)
    assert (watched.returncode, watched.stdout.count("\n")) == (1, 1)


def test_every_kind_is_rolled_out_from_the_command_line(client: httpx.Client, centre: Centre) -> None:
    engine, config = centre
    publish(engine, 1, name="argan", kind=Kind.AGENT)
    publish(engine, 1, name="gateway_os", kind=Kind.OS)
    where = ("--reason", "better", "--server", str(client.base_url), "--token-file", config.token)
    start = ("rollout", "start", "--group", "all", "--release", "1")
    asked = fleet(*start, "--agent", "argan", *where)
    assert "agent argan: none × 4 → release 1 × 4" in asked.stdout, asked.stderr
    asked = fleet(*start, "--os", "gateway_os", *where)
    assert "os gateway_os: none × 4 → release 1 × 4" in asked.stdout, asked.stderr
    both = fleet(*start, "--agent", "argan", "--os", "gateway_os", *where)
    assert (both.returncode, "what shall be rolled out?" in both.stderr) == (2, True)


def test_what_a_device_says_of_its_failure_moves_nothing_on_the_terminal() -> None:
    """C1 controls are none of those that a report is refused for."""
    member = {"id": "gw-1", "state": "failed", "update": "", "refusal": "", "detail": "\x9b2Jall is well"}
    (line,) = rollout_text.under_way({"devices": [member]})
    assert line == "gw-1: failed (\\x9b2Jall is well)"


def test_watching_draws_every_wave_and_who_is_under_way(client: httpx.Client, centre: Centre) -> None:
    page = started(client, waves=["2", "100%"])
    move_on(centre[0])
    path = f"/v1/rollouts/{page['rollout']['id']}"
    for one in client.get(path).json()["waves"][0]["devices"]:
        tell(centre[0], one["id"], update(2, "probation", installed=2))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(_drawing(Answer(client.get(path).json(), now_ms()), "as of 3 s ago"))
    drawn = captured.get()
    assert "wave 1  [....................]  0/2  open" in drawn
    assert drawn.count(": probation") == 2
    assert "wave 2  [....................]  0/2  waiting" in drawn
    assert "as of 3 s ago" in drawn


def test_only_what_changed_is_a_line(client: httpx.Client, centre: Centre) -> None:
    path = f"/v1/rollouts/{started(client)['rollout']['id']}"
    before = client.get(path).json()
    assert list(rollout_text.changes(None, before)) == [rollout_text.headline(before["rollout"])]
    assert list(rollout_text.changes(before, before)) == []
    move_on(centre[0])
    tell(centre[0], "gw-02", update(2, "testing"))
    lines = list(rollout_text.changes(before, client.get(path).json()))
    assert "gw-02: testing" in lines
    assert lines[-1].endswith("4 assigned")


def test_a_terminal_is_drawn_upon(client: httpx.Client, centre: Centre) -> None:
    identity = started(client)["rollout"]["id"]
    client.post(f"/v1/rollouts/{identity}/abort").raise_for_status()
    mine, theirs = pty.openpty()
    where = ("--server", str(client.base_url), "--token-file", str(centre[1].token))
    command = [sys.executable, "-m", "fleet_console", "rollout", "watch", identity, *where]
    watching = subprocess.Popen(command, stdout=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    drawn = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(mine, 4096):
            drawn += part
    os.close(mine)
    assert watching.wait(20) == 1
    assert b"\x1b[" in drawn
    assert b"wave 1" in drawn


@pytest.mark.parametrize(
    ("text", "meant"),
    [("90s", 90), ("2m", 120), ("1h", 3600), ("7d", 604_800), ("90", None), ("-1s", None), ("1 h", None)],
)
def test_times_as_people_write_them(text: str, meant: int | None) -> None:
    assert seconds(text) == meant
