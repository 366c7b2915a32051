"""Who may put a device out over the API: the right has to reach that device."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from fleet_server.access.tokens import OPERATOR
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Token
from tests.support.centre import answering, make_centre, now_ms, request_pem

NARROW = "a-token-for-the-north-alone"


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    engine, config = centre
    with writing(engine) as session:
        session.add(
            Token(
                tenant=config.tenant,
                sha256=hashlib.sha256(NARROW.encode()).hexdigest(),
                person=OPERATOR,
                name="north",
                site="north",
                created_ms=now_ms(),
            )
        )
    with answering(engine, config) as client:
        for name, site in (("gw-north", "north"), ("gw-south", "south")):
            new = {"id": name, "csr_pem": request_pem(name), "site": site}
            assert client.post("/v1/devices", json=new).status_code == 201
        yield client


@pytest.mark.attack
@pytest.mark.parametrize("action", ["revoke", "hold", "release"])
def test_a_right_for_one_site_does_not_reach_another(client: httpx.Client, action: str) -> None:
    north = {"Authorization": f"Bearer {NARROW}"}
    answer = client.post(f"/v1/devices/gw-south/{action}", json={"reason": "x"}, headers=north)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), "it is not for their eyes"
    client.post("/v1/devices/gw-south/hold", json={"reason": "x"})
    assert [item["code"] for item in client.get("/v1/devices/gw-south").json()["device"]["health"]] == [
        "device.held"
    ]
    near = client.post(f"/v1/devices/gw-north/{action}", json={"reason": "x"}, headers=north)
    assert near.status_code == (409 if action == "release" else 200)
