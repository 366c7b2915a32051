"""Orders to run in shadow, in both databases: apart from what acts, and ended by what comes to act."""

import msgspec
import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlmodel import Session, select

from fleet_protocol.targets import Kind, Mode
from fleet_server.database.engine import writing
from fleet_server.database.models import Assignment, metadata
from fleet_server.database.schema import _config
from fleet_server.devices.groups import set_group
from fleet_server.errors import BadChange, RulesError
from fleet_server.updates.changes import plan_assign, plan_start
from fleet_server.updates.rollout_rules import Rules
from fleet_server.updates.rollouts import Action, Order
from tests.support.actors import SOMEBODY
from tests.support.rollouts import (
    TENANT,
    act,
    add_fleet,
    digest,
    give,
    launch,
    move_on,
    page,
    publish,
    tell,
    update,
)

OLD, NEW = digest("leak", 1), digest("leak", 2)


@pytest.fixture
def fleet(engine: Engine) -> list[str]:
    """Two devices on which release 1 acts."""
    names = add_fleet(engine, 2)
    publish(engine, 1, 2)
    give(engine, names, 1)
    set_group(engine, TENANT, SOMEBODY, "all", "")
    return names


def orders(engine: Engine, device: str) -> dict[str, str]:
    with Session(engine) as session:
        rows = session.exec(select(Assignment).where(Assignment.device == device))
        return {row.mode: row.artifact for row in rows}


def assign(engine: Engine, device: str, release: int, mode: Mode, kind: Kind = Kind.MODEL) -> list[str]:
    """Assign by hand; the fields of the diff that somebody agrees to."""
    arguments = {"device": device, "kind": kind, "name": "leak", "release": release, "mode": mode}
    with writing(engine) as session:
        plan = plan_assign(session, TENANT, "", arguments)
        plan.carry()
        return [each.field for each in plan.diff]


def test_a_shadow_stands_beside_what_acts_until_it_acts_itself(engine: Engine, fleet: list[str]) -> None:
    device = fleet[0]
    assert "model leak in shadow" in assign(engine, device, 2, Mode.SHADOW)
    assert orders(engine, device) == {"act": OLD, "shadow": NEW}
    assert "model leak" in assign(engine, device, 2, Mode.ACT)
    assert orders(engine, device) == {"act": NEW}, "nothing runs in its own shadow"
    with pytest.raises(BadChange, match="in its own shadow"):
        assign(engine, device, 2, Mode.SHADOW)
    publish(engine, 3, kind=Kind.POLICY, name="leak")
    with pytest.raises(BadChange, match="only a model"):
        assign(engine, device, 3, Mode.SHADOW, Kind.POLICY)


def test_a_rollout_in_shadow_goes_by_what_runs_in_shadow(engine: Engine, fleet: list[str]) -> None:
    order = Order("all", Kind.MODEL, "leak", 2, Rules(waves=("100%",)), "a trial", Mode.SHADOW)
    identity = launch(engine, order)
    move_on(engine)
    assert [orders(engine, each) for each in fleet] == [{"act": OLD, "shadow": NEW}] * 2
    for each in fleet:
        tell(engine, each, update(2, "committed", installed=2))
    move_on(engine)
    assert page(engine, identity).rollout.state == "running", "what acts says nothing of the shadow"
    for each in fleet:
        beside = msgspec.structs.replace(update(2, "committed", installed=2), mode="shadow")
        tell(engine, each, update(1, "committed", installed=1), beside)
    move_on(engine)
    found = page(engine, identity).rollout
    assert (found.state, found.mode, found.counts["done"]) == ("done", "shadow", 2)


def test_only_a_model_is_rolled_out_in_shadow(engine: Engine, fleet: list[str]) -> None:
    assert fleet
    publish(engine, 1, kind=Kind.POLICY, name="watch")
    order = Order("all", Kind.POLICY, "watch", 1, Rules(waves=("100%",)), "a trial", Mode.SHADOW)
    with pytest.raises(RulesError, match="only a model"):
        launch(engine, order)


def shadow_of(release: int) -> Order:
    return Order("all", Kind.MODEL, "leak", release, Rules(waves=("100%",)), "a trial", Mode.SHADOW)


def test_a_device_on_which_the_release_acts_is_left_out_of_its_rollout_in_shadow(
    engine: Engine, fleet: list[str]
) -> None:
    with pytest.raises(RulesError, match="in its own shadow"):
        launch(engine, shadow_of(1))
    give(engine, fleet[:1], 2)
    identity = launch(engine, shadow_of(2))
    move_on(engine)
    found = page(engine, identity)
    assert [(one.id, "in its own shadow" in one.detail) for one in found.left_out] == [(fleet[0], True)]
    assert [orders(engine, each) for each in fleet] == [{"act": NEW}, {"act": OLD, "shadow": NEW}]


def test_a_shadow_that_is_taken_back_is_gone_where_the_one_before_acts_meanwhile(
    engine: Engine, fleet: list[str]
) -> None:
    publish(engine, 3)
    for each in fleet:
        assign(engine, each, 2, Mode.SHADOW)
    identity = launch(engine, shadow_of(3))
    move_on(engine)
    give(engine, fleet, 2)
    act(engine, identity, Action.ABORT)
    assert [orders(engine, each) for each in fleet] == [{"act": NEW}] * 2, "and no release 3 in shadow"


def test_going_back_before_shadows_leaves_no_answer_of_one(engine: Engine) -> None:
    """Unmarked it would pass for one that acted."""
    table = metadata.tables["inference"]
    given = {
        column.name: 1 if column.type.python_type in {int, float} else "x"
        for column in table.columns
        if column.server_default is None and column.type.python_type is not bool
    }
    rows = [given | {"uncertain": False, "seq": each, "shadow": each == 2} for each in (1, 2)]
    with engine.begin() as connection:
        connection.execute(table.insert(), rows)
    with engine.execution_options(write_first=True).begin() as connection:
        command.downgrade(_config(connection), "0006")
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT seq FROM inference"))) == [1]


def test_who_approves_a_rollout_sees_whose_terms_of_delivery_it_ends(
    engine: Engine, fleet: list[str]
) -> None:
    terms = {"max_kib_per_s": 16, "windows": ["22:00-06:00"]}
    given = {"device": fleet[0], "kind": "model", "name": "leak", "release": 2, "delivery": terms}
    asked = {"group": "all", "kind": "model", "name": "leak", "release": 2, "reason": "a trial"}
    with writing(engine) as session:
        plan_assign(session, TENANT, "", given).carry()
        diff = plan_start(session, TENANT, "id", asked | {"rules": {"waves": ["100%"]}}).diff
    (line,) = [each for each in diff if each.field == "delivery"]
    assert (line.before, line.after) == ({msgspec.json.encode(terms).decode(): 1}, "")
