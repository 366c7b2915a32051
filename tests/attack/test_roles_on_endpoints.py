"""Every role on every endpoint: the API's description says which right a route needs, and is held to it.

A caller without the right is refused before anything else is looked at; one with it is let through to
whatever the route says of a request that makes no sense. So a route that forgot its right, or a right that
reaches too far, is found without anybody writing a test for it.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from fleet_server.access.roles import RIGHTS, Permission, RoleName
from fleet_server.api.app import create_app
from fleet_server.api.centre import EVERYWHERE
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Person, Role, Token
from tests.support.centre import answering, make_centre
from tests.support.ledger import Tried

pytestmark = pytest.mark.attack

PUBLIC = frozenset({"open_session", "oidc_offer", "open_oidc_session"})
"""Operations that ask nobody who they are, by their operation id: the ways in."""

SELF_REFUSING = frozenset({"change_password"})
"""Operations that answer 401 to somebody who was let in: the password of before was wrong."""

LOGOUT = "close_session"
"""What ends the token that it comes with."""

LONG_AGO_MS = 1_000_000


@dataclass(frozen=True)
class Endpoint:
    """One operation, as the description has it."""

    name: str
    method: str
    path: str
    right: str | None
    takes_body: bool


@dataclass(frozen=True)
class Fleet:
    """An API, and a token of everybody who may try."""

    client: httpx.Client
    endpoints: list[Endpoint]
    tokens: dict[str, str]

    def ask(self, endpoint: Endpoint, token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {"Authorization": ""}
        path = re.sub(r"\{[^}]+\}", "model", endpoint.path)
        body = {"json": {}} if endpoint.takes_body else {}
        return self.client.request(endpoint.method, path, headers=headers, **body).status_code


def endpoints_of(engine: Engine, config: ServerConfig) -> list[Endpoint]:
    found = []
    for path, operations in create_app(engine, config).openapi()["paths"].items():
        for method, operation in operations.items():
            rights = [
                scope
                for each in operation.get("security", [])
                for scopes in each.values()
                for scope in scopes
                if scope != EVERYWHERE
            ]
            assert len(rights) <= 1, operation["operationId"]
            right = rights[0] if rights else None
            found.append(
                Endpoint(operation["operationId"], method.upper(), path, right, "requestBody" in operation)
            )
    return found


def hire(engine: Engine, tenant: str, name: str, is_a: RoleName, **narrowed: Any) -> str:
    """A person in the role ``is_a``, and a token of theirs."""
    token = f"token of {name}"
    with writing(engine) as session:
        session.add(Person(tenant=tenant, id=name, name=name, created_ms=wall_ms()))
        session.flush()
        session.add(Role(tenant=tenant, person=name, role=is_a))
        digest = hashlib.sha256(token.encode()).hexdigest()
        session.add(
            Token(tenant=tenant, sha256=digest, person=name, name="t", created_ms=wall_ms(), **narrowed)
        )
    return token


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    tokens = {role.value: hire(engine, config.tenant, f"a-{role.value}", role) for role in RoleName}
    with answering(engine, config) as client:
        yield Fleet(client, endpoints_of(engine, config), tokens)
    engine.dispose()


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(Path(tmp_path_factory.mktemp("other")) / "data")
    yield engine, config
    engine.dispose()


def test_every_operation_needs_exactly_one_right(fleet: Fleet, tried: Tried) -> None:
    for endpoint in fleet.endpoints:
        assert (endpoint.right is None) is (endpoint.name in PUBLIC), endpoint
        assert endpoint.right is None or endpoint.right in set(Permission), endpoint
    tried(len(fleet.endpoints))


@pytest.mark.parametrize(
    "token", [None, "wrong", "../../etc/passwd", "a" * 4000, "token of a-admin!", "Token of a-admin"]
)
def test_nobody_gets_anything(fleet: Fleet, tried: Tried, token: str | None) -> None:
    for endpoint in fleet.endpoints:
        if endpoint.name not in PUBLIC:
            assert fleet.ask(endpoint, token) == 401, endpoint
    tried(len(fleet.endpoints))


@pytest.mark.parametrize("role", list(RoleName))
def test_a_role_reaches_what_it_may_and_nothing_else(fleet: Fleet, tried: Tried, role: RoleName) -> None:
    for endpoint in (one for one in fleet.endpoints if one.name != LOGOUT):
        status = fleet.ask(endpoint, fleet.tokens[role])
        assert status < 500, endpoint
        if endpoint.right is not None:
            is_refused = Permission(endpoint.right) not in RIGHTS[role]
            assert (status == 403) is is_refused, (endpoint, status)
            assert status != 401 or endpoint.name in SELF_REFUSING, endpoint
    tried(len(fleet.endpoints))


@pytest.mark.parametrize("cap", list(RoleName))
def test_a_narrowed_token_of_an_administrator_reaches_no_more_than_its_role(
    centre: tuple[Engine, ServerConfig], tried: Tried, cap: RoleName
) -> None:
    engine, config = centre
    token = hire(engine, config.tenant, f"narrowed-{cap.value}", RoleName.ADMIN, role=cap.value)
    with answering(engine, config) as client:
        narrowed = Fleet(client, endpoints_of(engine, config), {})
        for endpoint in narrowed.endpoints:
            if endpoint.right is not None and Permission(endpoint.right) not in RIGHTS[cap]:
                assert narrowed.ask(endpoint, token) == 403, endpoint
    tried(len(narrowed.endpoints))


@pytest.mark.parametrize(
    "ended", [{"revoked_ms": LONG_AGO_MS}, {"expires_ms": LONG_AGO_MS}], ids=["revoked", "expired"]
)
def test_a_token_that_has_ended_opens_nothing(
    centre: tuple[Engine, ServerConfig], tried: Tried, ended: dict[str, int]
) -> None:
    engine, config = centre
    token = hire(engine, config.tenant, f"ended-{next(iter(ended))}", RoleName.ADMIN, **ended)
    with answering(engine, config) as client:
        fleet = Fleet(client, endpoints_of(engine, config), {})
        for endpoint in fleet.endpoints:
            if endpoint.name not in PUBLIC:
                assert fleet.ask(endpoint, token) == 401, endpoint
    tried(len(fleet.endpoints))


def test_a_disabled_persons_token_opens_nothing(centre: tuple[Engine, ServerConfig], tried: Tried) -> None:
    engine, config = centre
    token = hire(engine, config.tenant, "leaver", RoleName.ADMIN)
    with writing(engine) as session:
        person = session.get_one(Person, (config.tenant, "leaver"))
        person.disabled_ms = wall_ms()
    with answering(engine, config) as client:
        fleet = Fleet(client, endpoints_of(engine, config), {})
        for endpoint in fleet.endpoints:
            if endpoint.name not in PUBLIC:
                assert fleet.ask(endpoint, token) == 401, endpoint
    tried(len(fleet.endpoints))
