"""Tokens and secrets where they do not belong: each opens its own door, once it is open, and no other."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.device_post import DevicePost
from tests.support.fleet_server import ServerProcess, add
from tests.support.ledger import Tried
from tests.support.people import PASSWORD

pytestmark = pytest.mark.attack

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"
PUBLIC = {"/v1/session", "/v1/session/oidc"}
"""Where one comes to get in."""


@dataclass(frozen=True)
class Site:
    """A real server with one device."""

    server: ServerProcess
    post: DevicePost

    @property
    def token(self) -> str:
        """The token of the data folder: an administrator's."""
        return (self.server.data / "api.token").read_text().strip()

    def opened(self, token: str) -> list[str]:
        """The operations of the API that let ``token`` in."""
        found = []
        with self.server.client() as client:
            for method, path in operations():
                answer = client.request(method, path, headers={"Authorization": f"Bearer {token}"})
                if answer.status_code != 401:
                    found.append(f"{method} {path}: {answer.status_code}")
        return found

    def opened_for_devices(self, token: str) -> list[str]:
        """What of the device is given to whoever shows ``token``."""
        found = []
        with self.post.https() as client:
            client.headers["Authorization"] = f"Bearer {token}"
            metadata = f"/v1/updates/director/{self.post.name}/metadata"
            asked = [client.get(f"{metadata}/{name}") for name in ("timestamp.json", "1.root.json")]
            asked.append(client.post("/v1/device/certificate", json={"csr_pem": "x"}))
            found += [f"{each.url}: {each.status_code}" for each in asked if each.status_code != 401]
        return found


def operations() -> list[tuple[str, str]]:
    """Method and path of all that is not public."""
    paths = json.loads(DESCRIPTION.read_text())["paths"]
    return [
        (method.upper(), re.sub(r"\{[^}]+\}", "model", path))
        for path, methods in paths.items()
        for method in methods
        if not (path in PUBLIC and method != "delete")
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    server = ServerProcess(folder / "data")
    try:
        server.start()
        add(server, "gw-1", folder / "gw-1")
        yield Site(server, DevicePost(server, folder / "gw-1"))
    finally:
        server.end()


def test_a_devices_token_is_none_of_a_persons(site: Site, tried: Tried) -> None:
    token = site.post.token()
    assert site.post.orders(token) == 503, "its own, which awaits a key ceremony"
    assert site.opened(token) == []
    tried(len(operations()))


def test_an_administrators_token_is_none_of_a_devices(site: Site, tried: Tried) -> None:
    assert site.opened_for_devices(site.token) == []
    tried(3)


def test_what_a_device_signs_or_was_invited_with_is_no_token(site: Site, tried: Tried) -> None:
    with site.server.client() as client:
        wish = {"profile": "generic", "expires_s": 3600}
        invited = client.post("/v1/devices/gw-2/invitations", json=wish).raise_for_status().json()
    for secret in (site.post.assertion(), site.post.nonce(), invited["token"]):
        assert site.opened(secret) == []
        assert site.opened_for_devices(secret) == []
        tried(len(operations()) + 3)


def test_a_session_that_was_closed_is_not_opened_by_its_token_again(site: Site, tried: Tried) -> None:
    with site.server.client() as client:
        account = {"id": "ann", "rights": [{"role": "admin"}]}
        client.post("/v1/people", json=account).raise_for_status()
        client.put("/v1/people/ann/password", json={"password": PASSWORD}).raise_for_status()
        login = {"name": "ann", "password": PASSWORD}
        token = client.post("/v1/session", json=login).raise_for_status().json()["token"]
        mine = {"Authorization": f"Bearer {token}"}
        assert client.get("/v1/devices", headers=mine).status_code == 200
        assert client.delete("/v1/session", headers=mine).status_code == 204
    assert site.opened(token) == []
    tried(len(operations()))


def test_a_token_in_another_place_is_not_looked_for(site: Site, tried: Tried) -> None:
    """In an address it would end up in logs; in a cookie a browser would send it by itself."""
    ways: list[dict[str, dict[str, str]]] = [
        {"params": {"access_token": site.token}},
        {"params": {"token": site.token}},
        {"cookies": {"token": site.token}},
        {"headers": {"Authorization": f"Basic {site.token}"}},
        {"headers": {"Authorization": site.token}},
        {"headers": {"X-Api-Key": site.token}},
    ]
    for way in ways:
        with site.server.client() as client:
            del client.headers["Authorization"]
            client.headers.update(way.get("headers", {}))
            client.cookies.update(way.get("cookies", {}))
            assert client.get("/v1/devices", params=way.get("params", {})).status_code == 401, way
    tried(len(ways))
