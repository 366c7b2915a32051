"""Who has several accounts is one person all the same: what is decided by an account that one has made."""

from typing import Any

import pytest
from sqlalchemy import Engine

from fleet_server.access import people
from fleet_server.access.people import Right
from fleet_server.access.roles import Actor, Permission, RoleName
from fleet_server.approvals.standing import PUPPET_MS
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig, Settings, resolve
from fleet_server.errors import NotYours
from fleet_server.health import server_health
from fleet_server.updates.office import provide_keys
from tests.support.desk import BUDGET, Desk, furnished
from tests.support.people import PASSWORD, caller
from tests.support.rollouts import TENANT
from tests.support.waiting import wait_until


@pytest.fixture
def desk(engine: Engine, tmp_path: Any, database_url: str) -> Desk:
    config: ServerConfig = resolve(tmp_path, Settings(database_url=database_url, mqtt_port=8883))
    provide_keys(config)
    return furnished(engine, config)


@pytest.mark.attack
def test_nobody_is_approved_by_whom_they_gave_their_account_or_login(desk: Desk) -> None:
    root = Actor("root", "admin", "192.0.2.7")
    people.add(desk.engine, TENANT, root, "puppet", [Right(RoleName.APPROVER)], "puppet's token")
    puppet = caller(desk.engine, "puppet's token")
    mine = desk.propose(who=desk.root)
    with pytest.raises(NotYours, match="given puppet their account or login"):
        desk.approve(puppet, mine)
    people.set_password(desk.engine, TENANT, root, "ben", "correct horse battery staple")
    with pytest.raises(NotYours, match="given ben their account or login"):
        desk.approve(desk.ben, mine)
    assert desk.approve(desk.anna, mine) == "executed", "whom they have not touched"
    assert desk.approve(puppet, desk.propose("escalation.budget", BUDGET)) == "executed", "for others"


@pytest.mark.attack
def test_nobody_is_approved_by_way_of_accounts_that_made_each_other(desk: Desk) -> None:
    root = desk.root.actor(Permission.PEOPLE_MANAGE)
    people.add(desk.engine, TENANT, root, "puppet", [Right(RoleName.ADMIN)], "puppet's token")
    puppet = caller(desk.engine, "puppet's token")
    made = puppet.actor(Permission.PEOPLE_MANAGE)
    people.add(desk.engine, TENANT, made, "second", [Right(RoleName.APPROVER)], "second's token")
    second, mine = caller(desk.engine, "second's token"), desk.propose(who=desk.root)
    with pytest.raises(NotYours, match="given second their account or login of late, or somebody whom root"):
        desk.approve(second, mine)
    assert desk.approve(desk.anna, mine) == "executed", "whom none of them has touched"
    assert desk.approve(second, desk.propose("escalation.budget", BUDGET)) == "executed", "for others"


def test_an_account_that_is_changed_after_its_vote_loses_it_until_the_decision(desk: Desk) -> None:
    desk.rule(2)
    mine, root = desk.propose(who=desk.root), desk.root.actor(Permission.PEOPLE_MANAGE)
    desk.approve(desk.anna, mine)
    people.link(desk.engine, TENANT, root, "anna", "anna@city")
    assert desk.approve(desk.ben, mine) == "proposed"
    assert [(one.person, one.counts) for one in desk.page(mine).votes] == [("anna", False), ("ben", True)]
    cleo = desk.person("cleo")
    assert desk.approve(cleo, mine) == "executed"
    time_ms = desk.page(mine).proposal.decided_ms
    assert time_ms is not None
    wait_until(lambda: wall_ms() > time_ms, "the moment after the decision")
    people.link(desk.engine, TENANT, root, "cleo", "cleo@city")
    assert [one.person for one in desk.page(mine).votes if one.counts] == ["ben", "cleo"]


def test_an_account_that_was_given_long_ago_is_its_owners(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.set_password(desk.engine, TENANT, desk.root.actor(Permission.PEOPLE_MANAGE), "anna", PASSWORD)
    later = wall_ms() + PUPPET_MS + 60_000
    monkeypatch.setattr("fleet_server.approvals.proposals.wall_ms", lambda: later)
    assert desk.approve(desk.anna, desk.propose(who=desk.root)) == "executed"


@pytest.mark.attack
def test_broken_glass_is_acknowledged_by_somebody_else_who_may_decide_there(desk: Desk) -> None:
    root = desk.root.actor(Permission.PEOPLE_MANAGE)
    people.add(desk.engine, TENANT, root, "puppet", [Right(RoleName.APPROVER)], "puppet's token")
    identity = desk.propose()
    desk.proposals.break_glass(desk.root, identity, "a pipe has burst")
    with pytest.raises(NotYours, match="given puppet their account or login"):
        desk.proposals.acknowledge(caller(desk.engine, "puppet's token"), identity)
    with pytest.raises(NotYours, match="on everything that it reaches"):
        desk.proposals.acknowledge(desk.person("nora", site="north"), identity)
    assert is_loud(desk)
    desk.proposals.acknowledge(desk.anna, identity)
    assert not is_loud(desk)


def is_loud(desk: Desk) -> bool:
    return "access.break_glass" in {item.code for item in server_health(desk.engine)}
