"""What the database says of certificates: which were revoked, and which devices know the roots of now."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_server.access.roles import Actor
from fleet_server.authority.authority import open_authority
from fleet_server.authority.issuing import Revoked
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.models import Certificate
from fleet_server.devices.certificates import all_revoked, trust_of_devices
from fleet_server.identity.enrollment import Newcomer, enroll
from tests.support.centre import make_centre, request_pem

Centre = tuple[Engine, ServerConfig]


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    """Three devices; the second one's certificate was revoked."""
    engine, config = make_centre(tmp_path / "data")
    for device in ("gw-1", "gw-2", "gw-3"):
        newcomer = Newcomer(device, "pi5", None, "", "added")
        enroll(engine, config, newcomer, request_pem(device), Actor.shell("test"))
    change(engine, "gw-2", revoked_ms=1_700_000_000_000, revoked_reason="keyCompromise")
    yield engine, config
    engine.dispose()


def change(engine: Engine, device: str, **fields: int | str) -> Certificate:
    with Session(engine, expire_on_commit=False) as session:
        row = session.exec(select(Certificate).where(Certificate.device == device)).one()
        row.sqlmodel_update(fields)
        session.add(row)
        session.commit()
    return row


def test_the_revoked_are_told_until_they_expire(centre: Centre) -> None:
    row = change(centre[0], "gw-2")
    expected = [Revoked(int(row.serial, 16), 1_700_000_000_000, "keyCompromise")]
    assert all_revoked(centre[0], wall_ms()) == expected
    assert all_revoked(centre[0], row.not_after_ms) == []


def test_a_device_knows_the_roots_that_it_was_given_last_and_a_revoked_one_is_not_waited_for(
    centre: Centre,
) -> None:
    engine, config = centre
    trust = open_authority(config.authority, may_make=False).trust_sha256
    assert trust_of_devices(engine, trust) == (["gw-1", "gw-3"], [])
    change(engine, "gw-3", trust_sha256="of before")
    assert trust_of_devices(engine, trust) == (["gw-1"], ["gw-3"])
