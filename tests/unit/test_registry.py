"""The register of devices, and what is concluded of their health."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.health import CATALOG
from fleet_protocol.messages import HealthReport
from fleet_server.access.roles import Actor
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import (
    AuditRecord,
    Certificate,
    Presence,
    RefusalCount,
    Service,
    Site,
    Twin,
    TwinHalf,
)
from fleet_server.database.service import SILENT_MS, raise_code
from fleet_server.devices.health import SILENT_AFTER_MS, DeviceState, Signs, describe, health_of, state_of
from fleet_server.devices.registry import get_device, list_devices
from fleet_server.errors import Conflict, CsrRefused, NotFound
from fleet_server.health import server_health
from fleet_server.identity.enrollment import Newcomer, enroll
from fleet_server.link.mosquitto import INGEST, WATCH
from tests.support.centre import make_centre, now_ms, request_pem

NOW = 1_000_000_000


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


def add(centre: tuple[Engine, ServerConfig], name: str, site: str | None = None) -> None:
    admit(centre, name, request_pem(name), site)


def admit(centre: tuple[Engine, ServerConfig], name: str, request: str, site: str | None = None) -> str:
    newcomer = Newcomer(name, "pi5", site, "", "added")
    return enroll(*centre, newcomer, request, Actor.shell("test")).certificate_pem


def test_a_device_is_new_until_it_is_heard(centre: tuple[Engine, ServerConfig]) -> None:
    add(centre, "gw-01", "cabinet-7")
    page = get_device(centre[0], "default", "gw-01")
    assert (page.device.state, page.device.heard_ms, page.device.health) == ("new", None, [])
    assert (page.device.profile, page.device.site) == ("pi5", "cabinet-7")
    assert page.reported is None
    assert page.certificate_ends_ms is not None
    assert page.certificate_ends_ms > now_ms()


def test_a_second_device_of_the_same_name_is_refused(centre: tuple[Engine, ServerConfig]) -> None:
    add(centre, "gw-01")
    with pytest.raises(Conflict):
        add(centre, "gw-01")


def test_whoever_never_saw_the_answer_may_ask_again_with_the_same_key(
    centre: tuple[Engine, ServerConfig],
) -> None:
    request = request_pem("gw-01", ec.generate_private_key(ec.SECP256R1()))
    assert len({admit(centre, "gw-01", request) for _ in range(2)}) == 1, "and is given the same"
    with Session(centre[0]) as session:
        assert len(session.exec(select(Certificate)).all()) == 1
        assert [one.action for one in session.exec(select(AuditRecord))].count("device.enroll") == 1


def test_a_refused_request_registers_nothing(centre: tuple[Engine, ServerConfig]) -> None:
    with pytest.raises(CsrRefused):
        admit(centre, "gw-01", request_pem("svc.ingest-1"), "cabinet-7")
    assert list_devices(centre[0], "default", "", 10) == []
    with Session(centre[0]) as session:
        assert session.exec(select(Site)).all() == []


def test_a_device_that_nobody_added_is_not_found(centre: tuple[Engine, ServerConfig]) -> None:
    with pytest.raises(NotFound):
        get_device(centre[0], "default", "gw-99")


def test_pages_follow_each_other_without_overlap(centre: tuple[Engine, ServerConfig]) -> None:
    names = [f"gw-{number:02}" for number in range(7)]
    for name in reversed(names):
        add(centre, name)
    first = [one.id for one in list_devices(centre[0], "default", "", 4)]
    second = [one.id for one in list_devices(centre[0], "default", first[-1], 4)]
    assert first + second == names


def test_a_page_holds_what_the_device_reports_and_what_the_centre_sees(
    centre: tuple[Engine, ServerConfig],
) -> None:
    add(centre, "gw-01")
    reported = '{"agent": "argan-0.1.0", "health": [{"code": "sensor.timeout", "since_wall_ms": 5}]}'
    with writing(centre[0]) as session:
        whose = {"tenant": "default", "device": "gw-01"}
        session.add(Presence(**whose, heard_ms=now_ms()))
        session.add(Twin(**whose, half=TwinHalf.STATUS, changed_ms=1, document='{"online": true}'))
        session.add(Twin(**whose, half=TwinHalf.REPORTED, changed_ms=2, document=reported))
        session.add(RefusalCount(**whose, count=3, last_ms=now_ms(), last_reason="too long"))
    page = get_device(centre[0], "default", "gw-01")
    assert page.device.state == "online"
    assert [item.code for item in page.device.health] == ["message.refused", "sensor.timeout"]
    assert page.device.health[0].detail == "3 so far; the last: too long"
    assert page.reported is not None
    assert page.reported["agent"] == "argan-0.1.0"


@pytest.mark.parametrize(
    ("heard_ms", "is_online", "state"),
    [
        (None, False, DeviceState.NEW),
        (NOW, True, DeviceState.ONLINE),
        (NOW, False, DeviceState.OFFLINE),
        (NOW - SILENT_AFTER_MS, True, DeviceState.ONLINE),
        (NOW - SILENT_AFTER_MS - 1, True, DeviceState.SILENT),
        (NOW - SILENT_AFTER_MS - 1, False, DeviceState.SILENT),
    ],
)
def test_a_device_is_silent_when_two_reports_are_missing(
    heard_ms: int | None, is_online: bool, state: DeviceState
) -> None:
    signs = Signs(heard_ms, is_online)
    assert state_of(signs, NOW) is state
    assert [item.code for item in health_of(signs, NOW)] == (
        ["device.silent"] if state is DeviceState.SILENT else []
    )


def test_codes_come_with_the_catalogs_words_the_most_severe_first() -> None:
    reports = [HealthReport(code=code, since_wall_ms=1) for code in ("link.down", "spool.dropping")]
    items = describe(reports)
    assert [item.code for item in items] == ["spool.dropping", "link.down"]
    assert items[0].explained_by == ("link.down",)
    assert items[0].next_step == CATALOG["spool.dropping"].next_step


def test_a_code_of_a_newer_agent_is_shown_all_the_same() -> None:
    (item,) = describe([HealthReport(code="flux.capacitor", since_wall_ms=1, detail="88 mph")])
    assert (item.title, item.detail, item.severity) == ("flux.capacitor", "88 mph", "warning")
    assert "Update the server" in item.next_step


def test_an_ingest_that_no_longer_beats_is_down_whatever_the_watch_says(
    centre: tuple[Engine, ServerConfig],
) -> None:
    engine = centre[0]
    with writing(engine) as session:
        session.merge(Service(name=INGEST, started_ms=1, beat_ms=now_ms() - SILENT_MS - 1))
        session.add(Service(name=WATCH, started_ms=1, beat_ms=now_ms()))
    raise_code(engine, "broker.dropping", now_ms(), "5 dropped")
    items = server_health(engine)
    assert {item.code for item in items} == {"ingest.down", "broker.dropping"}
    dropping = next(item for item in items if item.code == "broker.dropping")
    assert dropping.explained_by == ("ingest.down",)


def test_an_ingest_that_was_never_heard_is_down(centre: tuple[Engine, ServerConfig]) -> None:
    with writing(centre[0]) as session:
        session.delete(session.get_one(Service, INGEST))
    assert [item.code for item in server_health(centre[0])] == ["ingest.down"]


def test_messages_of_strangers_show_on_the_server(centre: tuple[Engine, ServerConfig]) -> None:
    with writing(centre[0]) as session:
        session.add(
            RefusalCount(tenant="", device="", count=2, last_ms=now_ms(), last_reason="not registered")
        )
    (item,) = server_health(centre[0])
    assert item.code == "message.refused"
    assert "not registered" in item.detail
