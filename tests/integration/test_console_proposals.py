"""Proposals on the console, over a real server: seen, approved and rejected by somebody else alone."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine
from textual.widgets import Input

from fleet_console.sources.fleet import Fleet
from fleet_console.sources.http import Access
from tests.support.centre import answering, make_centre
from tests.support.console import asks, console, driven, screen, shows, told, until
from tests.support.people import add_person
from tests.support.rollouts import add_fleet, publish

ORDER = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "a better model"}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, httpx.Client]]:
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    add_fleet(engine, 3, site="north")
    publish(engine, 1, 2)
    with answering(engine, config) as client:
        client.put("/v1/groups/all", json={"filter": ""}).raise_for_status()
        yield engine, client
    engine.dispose()


def proposed(client: httpx.Client) -> str:
    answer = client.post("/v1/rollouts", json=ORDER)
    assert answer.status_code == 202, answer.text
    identity: str = answer.json()["proposal"]["id"]
    return identity


def over(client: httpx.Client, token: str) -> Fleet:
    return Fleet(Access(str(client.base_url), token))


@driven
async def test_somebody_else_looks_and_approves(site: tuple[Engine, httpx.Client]) -> None:
    engine, client = site
    identity = proposed(client)
    async with console(over(client, add_person(engine, "anna"))).run_test(size=(80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, shows(pilot, "◔ waits", "rollout.start", "operator", "0/1"), "the list")
        await pilot.press("enter")
        await until(pilot, shows(pilot, "none × 3 → release 2 × 3", "gw-02 at north"), "diff and radius")
        await pilot.press("a")
        await until(pilot, asks(pilot, "Approve what operator asks for?", identity), "the question")
        await pilot.press("enter")
        await until(pilot, lambda: "Approve what" not in screen(pilot), "cancelled")
        assert client.get("/v1/rollouts").json()["items"] == []
        await pilot.press("a")
        await until(pilot, asks(pilot, "Yours is the last approval"), "the question")
        await pilot.press("right", "enter")
        await until(pilot, shows(pilot, "✓ executed", "anna: yes"), "approved")
        await pilot.press("a")
        await until(pilot, lambda: "nothing is to decide" in told(pilot), "why not")
    assert [one["id"] for one in client.get("/v1/rollouts").json()["items"]] == [identity]


@driven
async def test_who_has_proposed_it_is_told_that_somebody_else_decides(
    site: tuple[Engine, httpx.Client],
) -> None:
    _engine, client = site
    proposed(client)
    mine = client.headers["Authorization"].removeprefix("Bearer ")
    async with console(over(client, mine)).run_test(size=(80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, shows(pilot, "rollout.start"), "the list")
        await pilot.press("enter")
        await until(pilot, shows(pilot, "3 devices at north"), "its page")
        await pilot.press("a")
        await until(pilot, asks(pilot, "Yours is the last"), "the question")
        await pilot.press("right", "enter")
        await until(pilot, lambda: "somebody else decides" in told(pilot), "the refusal")
    assert client.get("/v1/rollouts").json()["items"] == []


@driven
async def test_a_rejection_takes_a_reason(site: tuple[Engine, httpx.Client]) -> None:
    engine, client = site
    identity = proposed(client)
    async with console(over(client, add_person(engine, "anna"))).run_test(size=(80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, shows(pilot, "rollout.start"), "the list")
        await pilot.press("enter")
        await until(pilot, shows(pilot, "3 devices at north"), "its page")
        await pilot.press("x")
        await until(pilot, shows(pilot, "Reject it?"), "the question")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "it takes a reason")
        await pilot.press(*"not now", "enter")
        await until(pilot, shows(pilot, "✗ rejected", "not now"), "rejected")
    assert client.get(f"/v1/proposals/{identity}").json()["proposal"]["state"] == "rejected"
