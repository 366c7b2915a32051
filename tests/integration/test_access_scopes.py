"""Who sees and touches what over HTTP: nothing of another district, by any route, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.messages import Answer, AnswerState, encode
from fleet_server.access.people import Right
from fleet_server.access.roles import RoleName, Scope
from fleet_server.api.app import create_app
from fleet_server.api.centre import EVERYWHERE
from fleet_server.config import ServerConfig, Settings
from fleet_server.database.engine import writing
from fleet_server.database.models import Answer as AnswerRow
from fleet_server.database.models import ApprovalRule, DeviceTag, RefusalCount, Site
from fleet_server.database.models import Request as RequestRow
from fleet_server.devices.groups import set_group
from fleet_server.telemetry import query
from fleet_server.telemetry.store import Store
from tests.support.batches import NOW_MS, arrival, events, telemetry
from tests.support.centre import answering, make_centre
from tests.support.people import ROOT, TENANT, somebody
from tests.support.rollouts import add_fleet, begin, publish
from tests.support.routes import PUBLIC, filled, routes

pytestmark = pytest.mark.attack


@pytest.fixture
def centre(database_url: str, tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    """Two districts that have something of everything; north-01 is tagged as a pump."""
    engine, config = make_centre(tmp_path / "data", Settings(database_url=database_url))
    for site in ("north", "south"):
        add_fleet(engine, 2, site=site, prefix=site)
    publish(engine, 2)
    store = Store(engine, clock=lambda: NOW_MS / 1000 + 1)
    for site in ("north", "south"):
        name = f"{site}-00"
        store.commit([arrival(telemetry(1, inferences=1), name), arrival(events(1), name)])
    store.close()
    with writing(engine) as session:
        session.add(DeviceTag(tenant=TENANT, device="north-01", tag="pump"))
        for device in ("north-00", "south-00"):
            ask(session, device)
    yield engine, config
    engine.dispose()


@pytest.fixture
def client(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


def ask(session: Session, device: str) -> None:
    """A question of ``device`` and its answer."""
    answer = Answer(id="ab" * 16, state=AnswerState.ANSWERED, label=device)
    session.add(
        RequestRow(
            tenant=TENANT,
            device=device,
            id=answer.id,
            kind="leak",
            payload=b"",
            deadline_ms=1,
            received_ms=NOW_MS,
        )
    )
    session.flush()
    session.add(
        AnswerRow(
            tenant=TENANT, device=device, request=answer.id, state=answer.state, answered_by="x",
            payload=encode(answer), answered_ms=NOW_MS,
        )
    )  # fmt: skip


def test_nothing_of_another_district_is_seen_anywhere(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    rollout = begin(centre[0], group="all")
    proposal = propose(client, "south-00")["proposal"]["id"]
    seeing = somebody(centre[0], Right(RoleName.TECHNICIAN, "north"))
    everyone = {"Authorization": client.headers["Authorization"]}
    seen = 0
    for method, path, needed in routes(create_app(*centre)):
        if method != "get" or (method, path) in PUBLIC or EVERYWHERE in needed:
            continue
        for headers, names in ((seeing, {"north"}), (everyone, {"north", "south"})):
            answer = client.get(filled(path, rollout=rollout, proposal=proposal), headers=headers)
            found = {name for name in ("north", "south") if f"{name}-0" in answer.text}
            assert found <= names, (path, answer.text)
            seen += found == {"north", "south"}
        if "{device}" in path:
            hidden = client.get(filled(path, device="south-00"), headers=seeing)
            absent = client.get(filled(path, device="absent"), headers=seeing)
            # There is an invitation before there is a device: none is what a stranger sees of either.
            status = 200 if path.endswith("/invitations") else 404
            assert hidden.status_code == absent.status_code == status, path
            assert hidden.text.replace("south-00", "absent") == absent.text
    assert seen >= 4, "devices, events, escalations and the rollout tell of both to whoever may see both"


def propose(client: httpx.Client, *devices: str) -> dict[str, Any]:
    """What it says to ask for one release for one device, or for all in a rollout where none is named."""
    if devices:
        (device,) = devices
        wish = {"release": 2, "reason": f"because of {device}"}
        answer = client.put(f"/v1/devices/{device}/assignments/model/leak", json=wish)
    else:
        client.put("/v1/groups/all", json={"filter": ""}).raise_for_status()
        start = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "because"}
        answer = client.post("/v1/rollouts", json=start)
    page: dict[str, Any] = answer.raise_for_status().json()
    return page


def test_of_a_proposal_everybody_sees_what_reaches_their_devices(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    south = propose(client, "south-00")["proposal"]["id"]
    both = propose(client)["proposal"]["id"]
    for right, names, sites in (
        (Right(RoleName.VIEWER), ["north-00", "north-01", "south-00", "south-01"], ["north", "south"]),
        (Right(RoleName.VIEWER, "north"), ["north-00", "north-01"], ["north"]),
        (Right(RoleName.VIEWER, tag="pump"), ["north-01"], ["north"]),
        (Right(RoleName.VIEWER, "nowhere"), [], []),
    ):
        client.headers.update(somebody(centre[0], right))
        sees_south = "south-00" in names
        listed = client.get("/v1/proposals").json()["items"]
        assert [one["id"] for one in listed] == [both] * bool(names) + [south] * sees_south
        assert client.get(f"/v1/proposals/{south}").status_code == (200 if sees_south else 404)
        page = client.get(f"/v1/proposals/{both}")
        assert page.status_code == (200 if names else 404)
        if names:
            assert [one["id"] for one in page.json()["reached"]] == names
            assert (page.json()["proposal"]["devices"], page.json()["proposal"]["sites"]) == (
                len(names),
                sites,
            )
            assert page.json()["proposal"] == listed[0]


def test_lists_and_counts_are_of_what_is_seen(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    rollout = begin(centre[0], group="all")
    for right, names in (
        (Right(RoleName.VIEWER), ["north-00", "north-01", "south-00", "south-01"]),
        (Right(RoleName.VIEWER, "north"), ["north-00", "north-01"]),
        (Right(RoleName.VIEWER, tag="pump"), ["north-01"]),
        (Right(RoleName.VIEWER, "south", "pump"), []),
        (Right(RoleName.VIEWER, "nowhere"), []),
    ):
        client.headers.update(somebody(centre[0], right))
        assert [one["id"] for one in client.get("/v1/devices").json()["items"]] == names
        assert [one["devices"] for one in client.get("/v1/groups").json()["items"]] == [len(names)]
        with_data = [name for name in names if name.endswith("00")]
        assert [one["device"] for one in client.get("/v1/events").json()["items"]] == with_data
        asked = client.get("/v1/escalations").json()["items"]
        assert sorted(one["device"] for one in asked) == with_data
        page = client.get(f"/v1/rollouts/{rollout}").json()
        assert [one["id"] for wave in page["waves"] for one in wave["devices"]] == names
        assert sum(page["rollout"]["counts"].values()) == len(names)
        (listed,) = client.get("/v1/rollouts").json()["items"]
        assert listed == page["rollout"]


def test_totals_are_of_what_is_seen(client: httpx.Client, centre: tuple[Engine, ServerConfig]) -> None:
    with writing(centre[0]) as session:
        for device, count in (("south-00", 3), ("", 5)):
            session.add(
                RefusalCount(tenant=TENANT, device=device, count=count, last_ms=NOW_MS, last_reason="x")
            )
    whole = client.get("/v1/stats").json()["counts"]
    assert (whole["devices"], whole["refused"]) == (4, 8), "also of devices that nobody knows"
    for right, devices, share, refused in (
        (Right(RoleName.VIEWER, "north"), 2, 0.5, 0),
        (Right(RoleName.VIEWER, "south"), 2, 0.5, 3),
        (Right(RoleName.VIEWER, tag="pump"), 1, 0, 0),
        (Right(RoleName.VIEWER, "nowhere"), 0, 0, 0),
    ):
        headers = somebody(centre[0], right)
        seen = client.get("/v1/stats", headers=headers).json()["counts"]
        assert (seen["devices"], seen["refused"]) == (devices, refused)
        for kind in ("readings", "inferences", "events"):
            assert whole[kind] > 0
            assert seen[kind] == share * whole[kind], kind
    scopes = {"north": 0.5, "south": 0.5, "nowhere": 0.0}
    waits = query.latency(centre[0], TENANT, 0)
    assert waits is not None
    for site, share in scopes.items():
        part = query.latency(centre[0], TENANT, 0, [Scope(site)])
        assert (part.readings if part else 0) == share * waits.readings


def test_rules_name_no_site_out_of_sight(client: httpx.Client, centre: tuple[Engine, ServerConfig]) -> None:
    with writing(centre[0]) as session:
        session.add(Site(tenant=TENANT, id="empty", name="empty"))
        for site in ("", "north", "south", "empty"):
            session.add(ApprovalRule(tenant=TENANT, site=site, action="", approvals=2))
    for right, sites in (
        (Right(RoleName.VIEWER), ["", "empty", "north", "south"]),
        (Right(RoleName.VIEWER, "north"), ["", "north"]),
        (Right(RoleName.VIEWER, "empty"), ["", "empty"]),
        (Right(RoleName.VIEWER, tag="pump"), ["", "north"]),
        (Right(RoleName.VIEWER, "south", "pump"), [""]),
    ):
        headers = somebody(centre[0], right)
        items = client.get("/v1/approval-rules", headers=headers).json()["items"]
        assert [one["site"] for one in items] == sites


def test_a_device_out_of_sight_is_absent_for_whoever_would_change_it(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    northern = somebody(centre[0], Right(RoleName.TECHNICIAN, "north"))
    looking = somebody(centre[0], Right(RoleName.TECHNICIAN, "north"), Right(RoleName.VIEWER))
    for method, path, body in (
        ("PUT", "/v1/devices/{device}/tags/mine", None),
        ("DELETE", "/v1/devices/{device}/tags/mine", None),
        ("POST", "/v1/devices/{device}/invitations", {"replaces": True}),
    ):
        hidden, absent = (
            client.request(method, path.format(device=device), json=body, headers=northern)
            for device in ("south-00", "absent")
        )
        assert hidden.status_code == absent.status_code == 404, path
        assert hidden.text.replace("south-00", "absent") == absent.text
        known = client.request(method, path.format(device="south-00"), json=body, headers=looking)
        assert known.status_code == 403, "whoever sees it is told that they may not"
        mine = client.request(method, path.format(device="north-00"), json=body, headers=northern)
        assert mine.status_code in {200, 201}


def test_pages_go_on_within_what_is_seen(client: httpx.Client, centre: tuple[Engine, ServerConfig]) -> None:
    client.headers.update(somebody(centre[0], Right(RoleName.VIEWER, "south")))
    first = client.get("/v1/devices", params={"limit": 1}).json()
    assert [one["id"] for one in first["items"]] == ["south-00"]
    second = client.get("/v1/devices", params={"limit": 1, "after": first["next_after"]}).json()
    assert [one["id"] for one in second["items"]] == ["south-01"]


def test_two_districts_are_both_seen(client: httpx.Client, centre: tuple[Engine, ServerConfig]) -> None:
    client.headers.update(
        somebody(centre[0], Right(RoleName.VIEWER, "south"), Right(RoleName.TECHNICIAN, tag="pump"))
    )
    names = [one["id"] for one in client.get("/v1/devices").json()["items"]]
    assert names == ["north-01", "south-00", "south-01"]


def test_the_operator_of_a_district_moves_that_district_alone(
    client: httpx.Client, centre: tuple[Engine, ServerConfig]
) -> None:
    set_group(centre[0], TENANT, ROOT, "all", "")
    operator = somebody(centre[0], Right(RoleName.OPERATOR, "north"), Right(RoleName.VIEWER))
    stranger = somebody(centre[0], Right(RoleName.OPERATOR, "elsewhere"), Right(RoleName.VIEWER))
    client.headers.update(operator)
    place, wanted = "assignments/model/leak", {"release": 2, "reason": "x"}
    assert client.put(f"/v1/devices/north-00/{place}", json=wanted).status_code == 202
    assert client.put(f"/v1/devices/south-00/{place}", json=wanted).status_code == 403
    new = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "x"}
    refused = client.post("/v1/rollouts", json=new)
    assert (refused.status_code, "on everything that it reaches" in refused.text) == (403, True)
    both = begin(centre[0], group="all")
    assert client.put("/v1/groups/north", json={"filter": "site=north"}).status_code == 403
    assert client.post(f"/v1/rollouts/{both}/pause", headers=stranger).status_code == 403
    assert client.post(f"/v1/rollouts/{both}/pause").status_code == 200, "who sees harm may stop it"
    again = client.post(f"/v1/rollouts/{both}/resume", json={"reason": "x"})
    assert again.status_code == 403, "but not for others"
    assert client.post(f"/v1/rollouts/{both}/abort").status_code == 200
    northern = begin(centre[0], group="north", where="site=north")
    client.post(f"/v1/rollouts/{northern}/pause")
    assert client.post(f"/v1/rollouts/{northern}/resume", json={"reason": "x"}).status_code == 202
    client.post(f"/v1/rollouts/{northern}/abort")
    assert client.post("/v1/rollouts", json=new | {"group": "north"}).status_code == 202
