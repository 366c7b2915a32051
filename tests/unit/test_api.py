"""The API: who may ask, what is bounded, and the one shape of every failure."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from fleet_server.access.tokens import provide_token
from fleet_server.api.app import openapi_document
from fleet_server.config import ServerConfig
from tests.support.centre import answering, make_centre, request_pem

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


def new(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "csr_pem": request_pem(name), "profile": "raspberry-pi-5"} | more


def test_the_committed_description_is_the_one_of_the_code() -> None:
    assert OPENAPI.read_text() == openapi_document(), (
        "run: .venv/bin/python -m fleet_server openapi > docs/openapi.json"
    )


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic b3BlcmF0b3I6", "Bearer"])
def test_nobody_without_a_valid_token(client: httpx.Client, header: str | None) -> None:
    headers = {"Authorization": header} if header else {"Authorization": ""}
    for path in ("/v1/devices", "/v1/events", "/v1/health", "/v1/stats", "/v1/devices/gw-01/readings"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert set(answer.json()) == {"code", "message", "next_step"}
    assert client.post("/v1/devices", json=new("gw-01"), headers=headers).status_code == 401


def test_a_lost_token_file_ends_the_lost_token(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    assert client.get("/v1/health").status_code == 200
    engine, config = centre
    config.token.unlink()
    provide_token(engine, config.token, config.tenant)
    assert client.get("/v1/health").status_code == 401
    fresh = {"Authorization": f"Bearer {config.token.read_text().strip()}"}
    assert client.get("/v1/health", headers=fresh).status_code == 200
    assert config.token.stat().st_mode & 0o777 == 0o600


def test_a_device_is_added_listed_and_shown(client: httpx.Client) -> None:
    added = client.post("/v1/devices", json=new("gw-01", site="cabinet-7"))
    assert added.status_code == 201
    assert added.json()["broker_port"] == 8883
    assert added.json()["certificate_pem"].startswith("-----BEGIN CERTIFICATE-----")
    (item,) = client.get("/v1/devices").json()["items"]
    assert item == client.get("/v1/devices/gw-01").json()["device"]
    assert item["site"] == "cabinet-7"
    for part in ("readings", "inferences", "streams"):
        assert client.get(f"/v1/devices/gw-01/{part}").json() == {"items": []}


def test_adding_it_twice_is_a_conflict(client: httpx.Client) -> None:
    client.post("/v1/devices", json=new("gw-01"))
    answer = client.post("/v1/devices", json=new("gw-01"))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (new("gw-01", csr_pem=request_pem("gw-02")), "csr_refused"),
        (new("gw-01", csr_pem=request_pem("svc.ingest-1")), "csr_refused"),
        (new("gw-01", csr_pem="no request"), "csr_refused"),
        (new("gw-01", csr_pem="x" * 20_000), "invalid"),
        (new("svc.ingest-1"), "invalid"),
        (new("GW 01"), "invalid"),
        (new("gw-01", site="Town Hall"), "invalid"),
        ({}, "invalid"),
    ],
)
def test_a_bad_request_says_what_is_wrong(client: httpx.Client, body: dict[str, object], code: str) -> None:
    answer = client.post("/v1/devices", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["next_step"]
    assert client.get("/v1/devices").json()["items"] == []


@pytest.mark.parametrize(
    "path",
    ["/v1/devices?limit=1001", "/v1/devices?limit=0", "/v1/events?limit=1001", "/v1/events?after=-1",
     "/v1/devices/gw-01/readings?limit=10001", "/v1/devices/gw-01/readings?since_ms=-1",
     "/v1/devices/gw-01/inferences?until_ms=99999999999999999999", "/v1/devices/gw-01/streams?limit=9999"],
)  # fmt: skip
def test_every_list_is_bounded(client: httpx.Client, path: str) -> None:
    client.post("/v1/devices", json=new("gw-01"))
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_pages_of_devices(client: httpx.Client) -> None:
    for name in ("gw-a", "gw-b", "gw-c"):
        client.post("/v1/devices", json=new(name))
    first = client.get("/v1/devices", params={"limit": 2}).json()
    assert first["next_after"] == "gw-b"
    second = client.get("/v1/devices", params={"limit": 2, "after": "gw-b"}).json()
    assert [one["id"] for one in second["items"]] == ["gw-c"]
    assert second["next_after"] is None


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/devices/gw-99", 404, "not_found"),
        ("/v1/devices/gw-99/readings", 404, "not_found"),
        ("/v1/nothing", 404, "not_found"),
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str, status: int, code: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_database_that_fails_is_told_in_the_catalogs_words(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    with centre[0].begin() as connection:
        connection.exec_driver_sql("DROP TABLE presence")
    client.post("/v1/devices", json=new("gw-01"))
    answer = client.get("/v1/devices")
    assert (answer.status_code, answer.json()["code"]) == (503, "database.down")


def test_a_damaged_authority_is_a_fault_of_the_server(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    (centre[1].authority / "authority.json").write_text("garbage")
    answer = client.post("/v1/devices", json=new("gw-01"))
    assert (answer.status_code, answer.json()["code"]) == (500, "server_error")
    assert "restore the folder from a backup" in answer.json()["message"]


def test_a_well_server_says_so(client: httpx.Client) -> None:
    assert client.get("/v1/health").json()["items"] == []
    stats = client.get("/v1/stats").json()
    assert stats["counts"]["devices"] == 0
    assert stats["latency"] is None
