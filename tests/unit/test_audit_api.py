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
from fleet_server.database.models import AuditRecord, Claim, Role
from fleet_signing import artifacts, ceremony, image
from fleet_signing.artifacts import Artifact
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import now
from tests.support.actors import SOMEBODY
from tests.support.centre import answering, make_centre, request_pem
from tests.support.fleet_server import fleet
from tests.support.people import PASSWORD, add_person
from tests.support.repositories import policy
from tests.support.rollouts import TENANT, add_fleet, publish

Centre = tuple[Engine, ServerConfig]

WHY = {"reason": "better"}


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: Centre) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


Step = Callable[[], httpx.Response]


class Driver:
    """Calls every operation that changes something, with input that it accepts."""

    def __init__(self, client: httpx.Client, engine: Engine) -> None:
        self.client = client
        self.engine = engine
        self.offline = ceremony.OfflineKeys.generate()
        self.artifact = policy(1)
        self.anna = {"Authorization": f"Bearer {add_person(engine, 'anna')}"}
        add_fleet(engine, 2)
        publish(engine, 1, 2)

    def steps(self) -> dict[str, Step]:
        """Every operation, in an order in which each of them finds what it needs."""
        return self._devices() | self._boards() | self._changes() | self._updates() | self._people()

    def _devices(self) -> dict[str, Step]:
        put, post, delete = self.client.put, self.client.post, self.client.delete
        new = {"id": "gw-new", "csr_pem": request_pem("gw-new"), "site": "north"}
        return {
            "POST /v1/devices": lambda: post("/v1/devices", json=new),
            "POST /v1/devices/{device}/hold": lambda: post("/v1/devices/gw-new/hold", json=WHY),
            "POST /v1/devices/{device}/release": lambda: post("/v1/devices/gw-new/release", json=WHY),
            "POST /v1/devices/{device}/revoke": lambda: post("/v1/devices/gw-new/revoke", json=WHY),
            "PUT /v1/devices/{device}/tags/{word}": lambda: put("/v1/devices/gw-00/tags/pump"),
            "DELETE /v1/devices/{device}/tags/{word}": lambda: delete("/v1/devices/gw-00/tags/pump"),
            "PUT /v1/groups/{name}": lambda: put("/v1/groups/all", json={"filter": "id=gw-0*"}),
        }

    def _boards(self) -> dict[str, Step]:
        post, delete = self.client.post, self.client.delete
        batch = {"id": "spring", "csr_pem": request_pem("claim.spring"), "most": 3}
        invited = "/v1/devices/gw-x/invitations"
        return {
            "POST /v1/devices/{device}/invitations": lambda: post(invited, json={"profile": "generic"}),
            "DELETE /v1/devices/{device}/invitations/{invitation}": lambda: delete(
                f"{invited}/{self.client.get(invited).json()['items'][0]['id']}"
            ),
            "POST /v1/batches": lambda: post("/v1/batches", json=batch),
            "POST /v1/claims/{claim}/approval": lambda: post(
                f"/v1/claims/{self._claim('1')}/approval", json={"device": "gw-y"}
            ),
            "POST /v1/claims/{claim}/rejection": lambda: post(
                f"/v1/claims/{self._claim('2')}/rejection", json=WHY
            ),
            "DELETE /v1/batches/{batch}": lambda: delete("/v1/batches/spring"),
        }

    def _changes(self) -> dict[str, Step]:
        put, post, delete = self.client.put, self.client.post, self.client.delete
        path = "/v1/devices/gw-00/assignments/model/leak"
        budget = {"device_per_hour": 10, "tenant_per_hour": 100} | WHY
        rule = {"site": "north", "approvals": 2} | WHY
        order = {"group": "all", "kind": "model", "name": "leak", "release": 2} | WHY
        return {
            "PUT /v1/devices/{device}/assignments/{kind}/{name}": lambda: self._agreed(
                put(path, json={"release": 1} | WHY)
            ),
            "DELETE /v1/devices/{device}/assignments/{kind}/{name}": lambda: self._agreed(
                delete(path, params=WHY)
            ),
            "POST /v1/rollouts": lambda: self._agreed(post("/v1/rollouts", json=order)),
            "POST /v1/rollouts/{rollout}/pause": lambda: post(f"/v1/rollouts/{self.agreed}/pause"),
            "POST /v1/rollouts/{rollout}/resume": lambda: self._agreed(
                post(f"/v1/rollouts/{self.agreed}/resume", json=WHY), keep=True
            ),
            "POST /v1/rollouts/{rollout}/abort": lambda: post(f"/v1/rollouts/{self.agreed}/abort"),
            "PUT /v1/escalations/budget": lambda: put("/v1/escalations/budget", json=budget),
            "PUT /v1/approval-rules": lambda: put("/v1/approval-rules", json=rule),
            "POST /v1/proposals": self._propose,
            "POST /v1/proposals/{proposal}/approve": lambda: self._agreed(self._propose()),
            "POST /v1/proposals/{proposal}/reject": lambda: post(
                f"/v1/proposals/{self._propose().json()['proposal']['id']}/reject",
                json=WHY,
                headers=self.anna,
            ),
            "POST /v1/proposals/{proposal}/withdraw": lambda: post(
                f"/v1/proposals/{self._propose().json()['proposal']['id']}/withdraw"
            ),
            "POST /v1/proposals/{proposal}/break-glass": self._break_glass,
            "POST /v1/break-glass/{proposal}/acknowledge": lambda: post(
                f"/v1/break-glass/{self.broken}/acknowledge", headers=self.anna
            ),
        }

    def _updates(self) -> dict[str, Step]:
        return {
            "POST /v1/updates/roots": self._ceremony,
            "PUT /v1/artifacts/{path}": self._upload,
            "POST /v1/updates/metadata": self._publish,
        }

    def _people(self) -> dict[str, Step]:
        put, post, delete = self.client.put, self.client.post, self.client.delete
        ben, known = "/v1/people/ben", {"name": "ben", "password": PASSWORD}
        right = {"role": "viewer", "site": "north"}
        return {
            "POST /v1/people": lambda: post("/v1/people", json={"id": "ben", "rights": [{"role": "viewer"}]}),
            "POST /v1/people/{name}/rights": lambda: post(f"{ben}/rights", json=right),
            "DELETE /v1/people/{name}/rights": lambda: delete(f"{ben}/rights", params=right),
            "PUT /v1/people/{name}/subject": lambda: put(f"{ben}/subject", json={"subject": "b@city"}),
            "PUT /v1/people/{name}/password": lambda: put(f"{ben}/password", json={"password": PASSWORD}),
            "POST /v1/session": lambda: self._login(known),
            "PUT /v1/session/password": lambda: put(
                "/v1/session/password",
                json={"password": PASSWORD, "new_password": PASSWORD[::-1]},
                headers=self.ben,
            ),
            "POST /v1/tokens": lambda: post("/v1/tokens", json={"name": "script"}),
            "DELETE /v1/tokens/{name}": lambda: delete("/v1/tokens/script"),
            "DELETE /v1/people/{name}/tokens/{token}": lambda: delete(
                f"/v1/people/anna/tokens/{self.client.get('/v1/people/anna/tokens').json()['items'][0]['name']}"
            ),
            "DELETE /v1/session": lambda: delete(
                "/v1/session", headers=self._login(known | {"password": PASSWORD[::-1]}) and self.ben
            ),
            "POST /v1/people/{name}/disable": lambda: post(f"{ben}/disable"),
            "POST /v1/people/{name}/enable": lambda: post(f"{ben}/enable"),
        }

    def _agreed(self, answer: httpx.Response, *, keep: bool = False) -> httpx.Response:
        """The answer to a proposal, once anna has approved it; ``keep`` the id of the one before."""
        page = answer.raise_for_status().json()["proposal"]
        agreement = {"sha256": page["sha256"], "reason": "as agreed"}
        approved = self.client.post(f"/v1/proposals/{page['id']}/approve", json=agreement, headers=self.anna)
        assert approved.raise_for_status().json()["proposal"]["state"] == "executed", approved.text
        self.agreed = self.agreed if keep else page["id"]
        return approved

    def _propose(self) -> httpx.Response:
        self.hours = getattr(self, "hours", 100) + 1
        arguments = {"device_per_hour": self.hours, "tenant_per_hour": 1000}
        change = {"action": "escalation.budget", "arguments": arguments} | WHY
        return self.client.post("/v1/proposals", json=change).raise_for_status()

    def _break_glass(self) -> httpx.Response:
        self.broken = self._propose().json()["proposal"]["id"]
        return self.client.post(f"/v1/proposals/{self.broken}/break-glass", json=WHY)

    def _login(self, known: dict[str, str]) -> httpx.Response:
        answer = self.client.post("/v1/session", json=known).raise_for_status()
        self.ben = {"Authorization": f"Bearer {answer.json()['token']}"}
        return answer

    def _claim(self, number: str) -> str:
        """A board of the batch that waits to be let in."""
        identity = number * 12
        with writing(self.engine) as session:
            session.add(
                Claim(
                    tenant=TENANT, id=identity, batch="spring", serial=f"board-{number}", csr_pem="",
                    key_sha256=number * 64, source="192.0.2.7", state="waiting", asked_ms=1,
                )
            )  # fmt: skip
        return identity

    def _ceremony(self) -> httpx.Response:
        request = ceremony.decode_request(self.client.get("/v1/updates/keys").content)
        self.bundle = ceremony.hold(self.offline, request.online, now())
        return self.client.post("/v1/updates/roots", content=ceremony.encode_bundle(self.bundle))

    def _upload(self) -> httpx.Response:
        return self.client.put(f"/v1/artifacts/{self.artifact.target.path}", content=self.artifact.content)

    def _publish(self) -> httpx.Response:
        return self.publish("policies", self.artifact)

    def publish(self, role: str, artifact: Artifact) -> httpx.Response:
        """Publish ``artifact``, whose bytes may be here, by ``role``."""
        signed = image.add(self.bundle.roles[role], artifact.target, self.offline.roles[role], now())
        content = ceremony.encode_bundle(Bundle((), (), {role: signed}))
        return self.client.post("/v1/updates/metadata", params=WHY, content=content)


ELSEWHERE = {
    "POST /v1/session/oidc": "tests/integration/test_access_oidc.py, with a real issuer",
    "POST /v1/updates/receipts": "tests/integration/test_version_reports.py, with a device's own receipt",
}
"""Operations that are shown to leave a record in another place."""


def test_every_operation_that_changes_something_is_recorded(client: httpx.Client, centre: Centre) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
        if method != "get"
    }
    steps = Driver(client, centre[0]).steps()
    assert described == steps.keys() | ELSEWHERE.keys(), "give the new operation a step here"
    for operation, step in steps.items():
        before = last(centre[0])
        answer = step()
        assert answer.is_success, f"{operation}: {answer.text}"
        added = client.get("/v1/audit", params={"after": before}).json()["items"]
        assert added, f"{operation} leaves no record"
        assert all(one["source"] == "127.0.0.1" or one["role"] == "system" for one in added), operation


def last(engine: Engine) -> int:
    with Session(engine) as session:
        return session.exec(select(func.max(AuditRecord.number))).one() or 0


def test_what_is_refused_outside_the_database_is_recorded_as_failed(
    client: httpx.Client, centre: Centre
) -> None:
    driver = Driver(client, centre[0])
    driver._ceremony().raise_for_status()
    model = artifacts.of_model(Path("use_cases/water_network/models/pressure_leak"))
    assert driver.publish("models", model).status_code == 422, "its bytes are not here"
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
