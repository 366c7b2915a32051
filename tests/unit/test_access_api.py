"""Logging in, tokens and people over HTTP, who reaches which route, and what a request may cost."""

import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from fleet_server.access import people
from fleet_server.access.people import Right
from fleet_server.access.roles import RIGHTS, Permission, RoleName
from fleet_server.access.tokens import digest
from fleet_server.api.app import create_app
from fleet_server.api.centre import EVERYWHERE
from fleet_server.api.limits import LIMITS
from fleet_server.api.session import REFUSED_S
from fleet_server.callers import Rate
from fleet_server.config import ServerConfig
from tests.support.centre import answering, make_centre
from tests.support.people import PASSWORD, ROOT, TENANT, audited, somebody
from tests.support.routes import PUBLIC, filled, routes


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


@pytest.fixture
def ann(centre: tuple[Engine, ServerConfig]) -> dict[str, str]:
    """What Ann logs in with, who may see everything."""
    people.add(centre[0], TENANT, ROOT, "ann", [Right(RoleName.VIEWER)])
    people.set_password(centre[0], TENANT, ROOT, "ann", PASSWORD)
    return {"name": "ann", "password": PASSWORD}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response) -> tuple[int, Any]:
    assert set(answer.json()) == {"code", "message", "next_step"}
    return answer.status_code, answer.json()["code"]


def announced(client: httpx.Client, method: str, path: str, length: str) -> int:
    """The answer to a body that is announced and never sent."""
    connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
    try:
        connection.putrequest(method, path)
        connection.putheader("Authorization", client.headers["Authorization"])
        connection.putheader("Content-Length", length)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_route_takes_one_right_or_is_meant_for_strangers(centre: tuple[Engine, ServerConfig]) -> None:
    described = list(routes(create_app(*centre)))
    assert len(described) > 40
    for method, path, needed in described:
        rights = [name for name in needed if name != EVERYWHERE]
        if (method, path) in PUBLIC:
            assert rights == [], path
        else:
            assert len(rights) == 1, path
            assert rights[0] in set(Permission), path


@pytest.mark.parametrize("role", list(RoleName))
def test_a_role_reaches_the_routes_of_its_rights_and_no_other(
    client: httpx.Client, centre: tuple[Engine, ServerConfig], role: RoleName
) -> None:
    elsewhere = somebody(centre[0], Right(role, "elsewhere"))
    headers = somebody(centre[0], Right(role))
    for method, path, needed in routes(create_app(*centre)):
        if (method, path) in PUBLIC:
            continue
        answer = client.request(method, filled(path), headers=headers)
        may = Permission(needed[0]) in RIGHTS[role]
        assert (answer.status_code not in {401, 403}) == may, (method, path, answer.text)
        if EVERYWHERE in needed:
            assert client.request(method, filled(path), headers=elsewhere).status_code == 403, (method, path)
        if (method, path) == ("delete", "/v1/session"):
            headers = somebody(centre[0], Right(role))


def test_somebody_logs_in_and_out(client: httpx.Client, ann: dict[str, str]) -> None:
    answer = client.post("/v1/session", json=ann)
    opened = answer.json()
    assert (answer.status_code, opened["person"]) == (201, "ann")
    assert 0 < opened["expires_ms"] - time.time() * 1000 <= 8 * 3_600_000
    session = bearer(opened["token"])
    assert client.get("/v1/devices", headers=session).status_code == 200
    assert problem(client.get("/v1/people", headers=session)) == (403, "forbidden")
    assert client.delete("/v1/session", headers=session).status_code == 204
    assert problem(client.get("/v1/devices", headers=session)) == (401, "unauthorized")


@pytest.mark.attack
def test_a_refusal_tells_nothing_about_who_exists(client: httpx.Client, ann: dict[str, str]) -> None:
    def refused(name: str) -> tuple[float, str]:
        began_s = time.monotonic()
        answer = client.post("/v1/session", json={"name": name, "password": "wrong password"})
        assert problem(answer) == (401, "login_refused")
        return time.monotonic() - began_s, answer.text

    refused("nobody")
    unknown, known = [refused("nobody") for _ in range(3)], [refused("ann") for _ in range(3)]
    assert {text for _s, text in unknown} == {text for _s, text in known}
    took = [median(took_s for took_s, _text in each) for each in (unknown, known)]
    assert min(took) >= REFUSED_S
    assert 0.5 < took[0] / took[1] < 2.0


def test_a_locked_account_opens_when_an_administrator_says_so(
    client: httpx.Client, ann: dict[str, str], centre: tuple[Engine, ServerConfig]
) -> None:
    for _number in range(5):
        client.post("/v1/session", json=ann | {"password": "wrong password"})
    person = people.get_person(centre[0], TENANT, "ann")
    assert (person.failed_logins, person.locked_until_ms > 0) == (5, True)
    assert client.post("/v1/people/ann/enable").json()["locked_until_ms"] == 0
    assert client.post("/v1/session", json=ann).status_code == 201


def test_somebody_changes_their_own_password(client: httpx.Client, ann: dict[str, str]) -> None:
    session = bearer(client.post("/v1/session", json=ann).json()["token"])
    change = {"password": "wrong password", "new_password": "another long password"}
    wrong = client.put("/v1/session/password", json=change, headers=session)
    assert problem(wrong) == (401, "login_refused")
    short = change | {"password": PASSWORD, "new_password": "short"}
    assert problem(client.put("/v1/session/password", json=short, headers=session)) == (
        422,
        "password_refused",
    )
    right = client.put("/v1/session/password", json=change | {"password": PASSWORD}, headers=session)
    assert right.status_code == 204
    assert client.get("/v1/devices", headers=session).status_code == 401, "all sessions have ended"
    assert client.post("/v1/session", json=ann).status_code == 401
    assert client.post("/v1/session", json=ann | {"password": change["new_password"]}).status_code == 201


def test_tokens_are_made_listed_and_revoked(client: httpx.Client, ann: dict[str, str]) -> None:
    session = bearer(client.post("/v1/session", json=ann).json()["token"])
    new = {"name": "ci", "site": "north", "expires_s": 3600}
    made = client.post("/v1/tokens", json=new, headers=session)
    token = made.json()["token"]
    assert made.status_code == 201
    assert client.get("/v1/devices", headers=bearer(token)).status_code == 200
    broader = client.post("/v1/tokens", json={"name": "x", "site": "south"}, headers=bearer(token))
    assert problem(broader) == (403, "too_broad")
    again = client.post("/v1/tokens", json=new, headers=session)
    assert problem(again) == (409, "conflict")
    listed = client.get("/v1/tokens", headers=session)
    assert [one["name"] for one in listed.json()["items"]][1:] == ["ci"]
    assert token not in listed.text
    other = client.post("/v1/tokens", json={"name": "other"}, headers=session).json()["token"]
    shut_out = client.delete("/v1/tokens/other", headers=bearer(token))
    assert problem(shut_out) == (403, "too_broad"), "who finds a narrow token shuts nobody out"
    assert client.get("/v1/devices", headers=bearer(other)).status_code == 200
    assert client.delete("/v1/tokens/ci", headers=session).status_code == 200
    assert client.get("/v1/devices", headers=bearer(token)).status_code == 401
    assert problem(client.delete("/v1/tokens/ci", headers=session)) == (404, "not_found")


def test_an_administrator_manages_people(client: httpx.Client, centre: tuple[Engine, ServerConfig]) -> None:
    new = {"id": "bob", "rights": [{"role": "technician", "site": "north"}]}
    added = client.post("/v1/people", json=new)
    assert (added.status_code, added.json()["rights"][0]["site"]) == (201, "north")
    assert client.put("/v1/people/bob/password", json={"password": PASSWORD}).status_code == 204
    session = bearer(client.post("/v1/session", json={"name": "bob", "password": PASSWORD}).json()["token"])
    client.post("/v1/tokens", json={"name": "lost"}, headers=session)
    (_session, lost) = client.get("/v1/people/bob/tokens").json()["items"]
    assert client.delete(f"/v1/people/bob/tokens/{lost['name']}").status_code == 200
    where = {"role": "technician", "site": "north"}
    assert client.request("DELETE", "/v1/people/bob/rights", params=where).json()["rights"] == []
    assert client.post("/v1/people/bob/rights", json={"role": "viewer"}).json()["rights"] != []
    assert client.put("/v1/people/bob/subject", json={"subject": "s-1"}).json()["subject"] == "s-1"
    assert client.post("/v1/people/bob/disable").json()["disabled_ms"] is not None
    assert client.get("/v1/devices", headers=session).status_code == 401
    assert problem(client.post("/v1/people/operator/disable")) == (409, "conflict")
    assert [one["id"] for one in client.get("/v1/people").json()["items"]] == ["bob", "operator"]
    first = client.get("/v1/people", params={"limit": 1}).json()
    assert first["next_after"] == "bob"
    (record,) = audited(centre[0], "person.disable")
    assert (record.person, record.role, record.source, record.subject) == (
        "operator", "admin", "127.0.0.1", "bob",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/people", {"id": "Bob B."}),
        ("/v1/people", {"id": "bob", "rights": [{"role": "king"}]}),
        ("/v1/people", {"id": "bob", "rights": [{"role": "viewer", "site": "Town Hall"}]}),
        ("/v1/tokens", {"name": ""}),
        ("/v1/tokens", {"name": "x", "expires_s": 10**9}),
        ("/v1/session", {"name": "ann"}),
        ("/v1/session", {"name": "ann", "password": "x" * 1000}),
    ],
)
def test_what_makes_no_sense_is_refused(client: httpx.Client, path: str, body: dict[str, object]) -> None:
    answer = client.post(path, json=body)
    assert problem(answer) == (422, "invalid")
    assert "xxxx" not in answer.text


def test_every_answer_has_the_headers_of_a_careful_server(client: httpx.Client) -> None:
    for path in ("/v1/health", "/v1/nothing", "/openapi.json", "/v1/session"):
        headers = client.get(path).headers
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"


def test_a_bug_is_answered_with_the_same_headers(
    centre: tuple[Engine, ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet_server.api.health.server_health", lambda _engine: 1 // 0)
    with answering(*centre) as client:
        answer = client.get("/v1/health")
    assert problem(answer) == (500, "bug")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.attack
def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: httpx.Client) -> None:
    answer = client.post("/v1/session", content=b"x" * (LIMITS.body + 1))
    assert problem(answer) == (413, "too_large")
    assert announced(client, "POST", "/v1/session", "99999999") == 413
    assert announced(client, "POST", "/v1/session", "-1") in {400, 413}


@pytest.mark.attack
def test_a_body_of_unknown_length_is_refused_at_the_byte_that_is_too_many(client: httpx.Client) -> None:
    parts = (b"x" * 1024 for _ in range(LIMITS.body // 1024 + 1))
    answer = client.post("/v1/people", content=parts, headers={"Content-Type": "application/json"})
    assert problem(answer) == (413, "too_large")
    assert f"at most {LIMITS.body} bytes" in answer.json()["message"]


def test_artifacts_and_metadata_have_limits_of_their_own(client: httpx.Client) -> None:
    body = b"x" * (2 * LIMITS.body)
    assert client.put("/v1/artifacts/models/leak/1.tar", content=body).status_code == 422
    assert client.post("/v1/updates/metadata", content=body).status_code == 422
    assert announced(client, "PUT", "/v1/artifacts/models/leak/1.tar", str(2**40)) == 413


@pytest.mark.attack
def test_who_asks_too_often_is_told_when_to_come_again(
    centre: tuple[Engine, ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(LIMITS, token=Rate(per_s=0.25, burst=3))
    monkeypatch.setattr("tests.support.centre.LIMITS", few)
    other = somebody(centre[0], Right(RoleName.VIEWER))
    with answering(*centre) as client:
        answers = [client.get("/v1/health") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert problem(answers[-1]) == (429, "too_many_requests")
        # Of the four seconds that a request takes to come back, some have passed on a slow machine.
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 4
        assert client.get("/v1/health", headers=other).status_code == 200, "another token is another caller"


@pytest.mark.attack
def test_one_address_logs_in_so_often_and_not_more(client: httpx.Client) -> None:
    answers = [client.post("/v1/session", json={}).status_code for _ in range(12)]
    assert answers[:10] == [422] * 10
    assert 429 in answers
    assert client.get("/v1/health").status_code == 200, "whatever else it asks is answered"


@pytest.mark.attack
def test_one_address_is_bounded_whatever_tokens_it_tries(
    centre: tuple[Engine, ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.centre.LIMITS", replace(LIMITS, address=Rate(per_s=0.1, burst=5)))
    with answering(*centre) as client:
        tried = [client.get("/v1/health", headers=bearer(f"t{n}")).status_code for n in range(8)]
    assert tried == [401] * 5 + [429] * 3


@pytest.mark.attack
def test_a_statement_that_fails_is_logged_without_what_it_was_given(
    centre: tuple[Engine, ServerConfig], caplog: pytest.LogCaptureFixture
) -> None:
    with centre[0].begin() as connection:
        connection.exec_driver_sql("ALTER TABLE token RENAME TO tokens")
    with answering(*centre) as client:
        assert client.get("/v1/devices", headers=bearer("secret")).json()["code"] == "database.down"
    assert "no such table" in caplog.text
    assert digest("secret") not in caplog.text
