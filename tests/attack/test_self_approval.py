"""One person alone changes nothing that takes two, with whatever token of theirs, over the real API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from fleet_server.access.people import Right
from fleet_server.access.roles import RoleName
from fleet_server.config import ServerConfig
from tests.support.centre import answering, make_centre
from tests.support.ledger import Tried
from tests.support.people import somebody

pytestmark = pytest.mark.attack

RULE = {"site": "", "action": "", "approvals": 0, "reason": "nobody needs to look"}
ALL_ROLES = [Right(role) for role in RoleName]


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


def test_nobody_approves_alone(centre: tuple[Engine, ServerConfig], tried: Tried) -> None:
    mallory = somebody(centre[0], *ALL_ROLES, name="mallory")
    other = somebody(centre[0], Right(RoleName.VIEWER), Right(RoleName.TECHNICIAN))
    with answering(*centre) as client:
        client.headers.update(mallory)
        page = client.put("/v1/approval-rules", json=RULE).raise_for_status().json()
        agreement = {"sha256": page["proposal"]["sha256"]}
        approve = f"/v1/proposals/{page['proposal']['id']}/approve"
        for headers in (mallory, another_token(client), another_token(client, role="approver")):
            assert client.post(approve, json=agreement, headers=headers).status_code == 403
        assert client.post(approve, json=agreement, headers=other).status_code == 403
        with_second = somebody(centre[0], Right(RoleName.APPROVER))
        wrong = {"sha256": "0" * 64}
        assert client.post(approve, json=wrong, headers=with_second).status_code == 409
        assert state(client, page)["state"] == "proposed"
        assert client.get("/v1/approval-rules").json()["items"] == []
        tried(5)
        done = client.post(approve, json=agreement, headers=with_second)
        assert done.json()["proposal"]["state"] == "executed", "one who belongs gets through"


def another_token(client: httpx.Client, **narrowed: str) -> dict[str, str]:
    """A further token of whoever asks."""
    wish = {"name": f"more{len(narrowed)}", **narrowed}
    made = client.post("/v1/tokens", json=wish).raise_for_status().json()
    return {"Authorization": f"Bearer {made['token']}"}


def state(client: httpx.Client, page: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/proposals/{page['proposal']['id']}").json()["proposal"]
    return found
