"""The record of changes over HTTP and on the command line; no operation changes anything without it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from sqlmodel import Session, func, select

from fleet_console.tables import safe
from fleet_server.access.tokens import OPERATOR
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import AuditRecord, Role
from fleet_signing import ceremony, image
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import now
from tests.support.actors import SOMEBODY
from tests.support.centre import answering, make_centre, request_pem
from tests.support.fleet_server import fleet
from tests.support.repositories import policy
from tests.support.rollouts import TENANT, add_fleet, publish

Centre = tuple[Engine, ServerConfig]


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: Centre) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


class Driver:
    """Calls every operation that changes something, with input that it accepts."""

    def __init__(self, client: httpx.Client, engine: Engine) -> None:
        self.client = client
        self.offline = ceremony.OfflineKeys.generate()
        self.artifact = policy(1)
        add_fleet(engine, 2)
        publish(engine, 1, 2)

    def steps(self) -> dict[str, Callable[[], httpx.Response]]:
        put, post, delete = self.client.put, self.client.post, self.client.delete
        new = {"id": "gw-new", "csr_pem": request_pem("gw-new")}
        path = "/v1/devices/gw-00/assignments/model/leak"
        return {
            "POST /v1/devices": lambda: post("/v1/devices", json=new),
            "PUT /v1/groups/{name}": lambda: put("/v1/groups/all", json={"filter": "id=gw-0*"}),
            "PUT /v1/devices/{device}/assignments/{kind}/{name}": lambda: put(path, json={"release": 1}),
            "DELETE /v1/devices/{device}/assignments/{kind}/{name}": lambda: delete(path),
            "POST /v1/rollouts": self._start,
            "POST /v1/rollouts/{rollout}/pause": lambda: self._act("pause"),
            "POST /v1/rollouts/{rollout}/resume": lambda: self._act("resume"),
            "POST /v1/rollouts/{rollout}/abort": lambda: self._act("abort"),
            "POST /v1/updates/roots": self._ceremony,
            "PUT /v1/artifacts/{path}": self._upload,
            "POST /v1/updates/metadata": self._publish,
        }

    def _start(self) -> httpx.Response:
        order = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "better"}
        answer = self.client.post("/v1/rollouts", json=order)
        self.rollout = answer.json()["rollout"]["id"]
        return answer

    def _act(self, action: str) -> httpx.Response:
        return self.client.post(f"/v1/rollouts/{self.rollout}/{action}")

    def _ceremony(self) -> httpx.Response:
        request = ceremony.decode_request(self.client.get("/v1/updates/keys").content)
        self.bundle = ceremony.hold(self.offline, request.online, now())
        return self.client.post("/v1/updates/roots", content=ceremony.encode_bundle(self.bundle))

    def _upload(self) -> httpx.Response:
        return self.client.put(f"/v1/artifacts/{self.artifact.target.path}", content=self.artifact.content)

    def _publish(self) -> httpx.Response:
        signer = self.offline.roles["policies"]
        role = image.add(self.bundle.roles["policies"], self.artifact.target, [signer], now())
        content = ceremony.encode_bundle(Bundle((), (), {"policies": role}))
        return self.client.post("/v1/updates/metadata", content=content)


NOT_RECORDED: dict[str, str] = {}
"""Operations other than GET that change nothing, each with its reason. There are none."""


def test_every_operation_that_changes_something_is_recorded(client: httpx.Client, centre: Centre) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
        if method != "get"
    }
    steps = Driver(client, centre[0]).steps()
    assert described == steps.keys() | NOT_RECORDED.keys(), "give the new operation a step here"
    for operation, step in steps.items():
        before = last(centre[0])
        answer = step()
        assert answer.is_success, f"{operation}: {answer.text}"
        added = client.get("/v1/audit", params={"after": before, "person": OPERATOR}).json()["items"]
        assert added, f"{operation} leaves no record"
        assert {(one["role"], one["source"]) for one in added} == {("admin", "127.0.0.1")}, operation


def last(engine: Engine) -> int:
    with Session(engine) as session:
        return session.exec(select(func.max(AuditRecord.number))).one() or 0


def test_what_is_refused_outside_the_database_is_recorded_as_failed(
    client: httpx.Client, centre: Centre
) -> None:
    driver = Driver(client, centre[0])
    driver._ceremony().raise_for_status()
    assert driver._publish().status_code == 422, "its bytes are not here"
    states = [one["detail"] for one in client.get("/v1/audit", params={"action": "metadata"}).json()["items"]]
    assert [one["state"] for one in states] == ["begun", "failed"]
    assert "are not here; upload them" in states[1]["reason"]


def test_pages_and_filters(client: httpx.Client, centre: Centre) -> None:
    for name in ("a", "b", "c"):
        client.put(f"/v1/groups/{name}", json={"filter": ""}).raise_for_status()
    with writing(centre[0]) as session:
        audit.append(session, TENANT, SOMEBODY, Change("groups", "other"))

    def ask(**what: Any) -> list[str]:
        return [
            one["subject"] for one in client.get("/v1/audit", params=what).raise_for_status().json()["items"]
        ]

    assert ask(action="group") == ask(action="group.set") == ["a", "b", "c"]
    assert ask(action="grou") == ask(action="group%") == ask(action="group.") == []
    assert ask(person="kim") == ["other"]
    assert ask(subject="b") == ["b"]
    assert ask(since_ms=4_000_000_000_000) == []
    first = client.get("/v1/audit", params={"action": "group", "limit": 2}).json()
    assert [one["subject"] for one in first["items"]] == ["a", "b"]
    assert ask(action="group", after=first["next_after"]) == ["c"]
    assert client.get("/v1/audit", params={"limit": 1001}).status_code == 422
    one = first["items"][0]
    assert (one["person"], one["role"], one["source"]) == (OPERATOR, "admin", "127.0.0.1")
    assert one["detail"] == {"before": None, "devices": 0, "filter": ""}


@pytest.mark.parametrize(("role", "site", "status"), [
    ("viewer", "", 403), ("operator", "", 403), ("approver", "", 200), ("approver", "north", 403),
])  # fmt: skip
def test_who_may_read_it(client: httpx.Client, centre: Centre, role: str, site: str, status: int) -> None:
    with writing(centre[0]) as session:
        session.delete(session.exec(select(Role)).one())
        session.flush()
        session.add(Role(tenant=TENANT, person=OPERATOR, role=role, site=site))
    assert client.get("/v1/audit").status_code == status


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nx\u202egnp\u2066\x9b31m"


def test_hostile_names_do_nothing_to_a_terminal(client: httpx.Client, centre: Centre) -> None:
    with writing(centre[0]) as session:
        audit.append(session, TENANT, SOMEBODY, Change("x.y", HOSTILE, detail={"said": HOSTILE, "n": [1]}))
    where = ("--server", str(client.base_url), "--token-file", centre[1].token)
    done = fleet("audit", "list", "--person", "kim", *where)
    assert done.returncode == 0, done.stderr
    heads, row = done.stdout.splitlines()
    assert heads.split() == ["NUMBER", "AGE", "WHO", "ROLE", "FROM", "ACTION", "SUBJECT", "DETAIL"]
    assert all(each.isprintable() for each in row)
    assert r"\x1b]0;owned\x07\x1b[2J\r\nx\u202egnp\u2066\x9b31m" in row
    assert row.split()[3:7] == ["kim", "operator", "192.0.2.7", "x.y"]
    (item,) = json.loads(fleet("audit", "list", "--action", "x", "--json", *where).stdout)
    assert (item["subject"], item["detail"]) == (HOSTILE, {"said": HOSTILE, "n": [1]})
    assert fleet("audit", "list", "--since", "yesterday", *where).returncode == 2


def test_words_of_all_languages_stay_as_they_are() -> None:
    assert safe("Zürich مضخة 水泵 a b") == "Zürich مضخة 水泵 a b"
