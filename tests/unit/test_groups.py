"""Groups: the grammar of filters, and which devices they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_server.database.engine import open_engine
from fleet_server.database.models import Device
from fleet_server.devices.groups import Term, holds, list_groups, members, parse, set_group
from fleet_server.errors import FilterError, RolloutNotFound
from tests.support.actors import SOMEBODY
from tests.support.databases import migrated_sqlite
from tests.support.rollouts import TENANT, add_fleet


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(migrated_sqlite(tmp_path / "fleet.db"))
    add_fleet(engine, 3, site="north")
    add_fleet(engine, 2, prefix="pump")
    yield engine
    engine.dispose()


def found(engine: Engine, text: str) -> list[str]:
    set_group(engine, TENANT, SOMEBODY, "some", text)
    with Session(engine) as session:
        return [device.id for device in members(session, TENANT, "some")]


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("", ["gw-00", "gw-01", "gw-02", "pump-00", "pump-01"]),
        ("  id=gw-*   site=nor* ", ["gw-00", "gw-01", "gw-02"]),
        ("id=*-01", ["gw-01", "pump-01"]),
        ("id=*-*1", ["gw-01", "pump-01"]),
        ("id=gw-01", ["gw-01"]),
        ("id=gw-* id=*2", ["gw-02"]),
        ("profile=simulated site=north id=*0", ["gw-00"]),
        ("id=gw-0", []),
        ("id=gw-00*0", []),
        ("site=*", ["gw-00", "gw-01", "gw-02"]),
        ("profile=pi5", []),
    ],
)
def test_all_terms_must_hold(engine: Engine, text: str, devices: list[str]) -> None:
    assert found(engine, text) == devices


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("site", "at character 1: 'site' is no term"),
        (
            "site=north color=red",
            "at character 12: devices have no field 'color'; use site, profile, tag, id",
        ),
        ("site=north  id=", "at character 13: 'id=' is no term"),
        ("=north", "at character 1: devices have no field ''"),
        ("id==gw", "at character 1: 'id==gw' is no term"),
        ("id=gw-1, id=gw-2 or", "at character 18: 'or' is no term"),
        ("id=" + "x" * 300, "303 characters; at most 300"),
    ],
)
def test_bad_input_is_told_with_its_place_and_saves_nothing(
    engine: Engine, text: str, complaint: str
) -> None:
    with pytest.raises(FilterError, match=complaint.replace("(", r"\(")):
        set_group(engine, TENANT, SOMEBODY, "bad", text)
    assert list_groups(engine, TENANT, "", 10) == []


def test_a_group_is_saved_again_under_its_name_and_counts_its_devices(engine: Engine) -> None:
    set_group(engine, TENANT, SOMEBODY, "b", "site=north")
    set_group(engine, TENANT, SOMEBODY, "a", "")
    set_group(engine, TENANT, SOMEBODY, "b", "id=pump-*")
    listed = list_groups(engine, TENANT, "", 10)
    assert [(one.name, one.filter, one.devices) for one in listed] == [("a", "", 5), ("b", "id=pump-*", 2)]
    assert [one.name for one in list_groups(engine, TENANT, "a", 10)] == ["b"]


def test_a_group_that_nobody_saved(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(RolloutNotFound, match="no group 'none'"):
        members(session, TENANT, "none")


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.text("ab", max_size=8))
def test_a_pattern_holds_exactly_where_its_pieces_are_found_in_order(pieces: list[str], value: str) -> None:
    def naive(rest: list[str], text: str) -> bool:
        if len(rest) == 1:
            return text == rest[0]
        return text.startswith(rest[0]) and any(
            naive(rest[1:], text[cut:]) for cut in range(len(rest[0]), len(text) + 1)
        )

    assert Term("id", "*".join(pieces)).holds(value) == naive(pieces, value)


def test_a_hostile_pattern_costs_nothing() -> None:
    device = Device(tenant=TENANT, id="a" * 63, profile="x", created_ms=1)
    assert not holds(parse("id=" + "a*" * 140 + "b"), device, ())
