"""What revoking writes down, on both databases; no broker is asked here."""

import pytest
from cryptography import x509
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Hold, RefusalCount
from fleet_server.devices.certificates import all_revoked, certificate_row, serial_text
from fleet_server.identity.quarantine import REFUSED_AT_ONCE, Quarantine
from fleet_server.identity.revocation import pending, settle
from fleet_server.identity.revoking import FLOODING, ON_HOLD, TAKEN_BACK, hold, release, revoke
from tests.support.batches import register
from tests.support.fleet_broker import FleetBroker

NOW_MS = wall_ms()
WHO = Actor("ada", "operator", "127.0.0.1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> x509.Certificate:
    device = FleetBroker(tmp_path_factory.mktemp("fleet")).device("gw-01")
    return x509.load_pem_x509_certificate(device.certificate.read_bytes())


@pytest.fixture
def serial(engine: Engine, certificate: x509.Certificate) -> str:
    register(engine, "gw-01")
    with writing(engine) as session:
        session.add(certificate_row("default", "gw-01", certificate, ""))
    return serial_text(certificate)


def state(engine: Engine, serial: str) -> tuple[bool, str, bool]:
    with Session(engine) as session:
        row = session.get_one(Certificate, ("default", serial))
        return row.revoked_ms is not None, row.revoked_reason, row.enforced_ms is not None


def obey(engine: Engine) -> None:
    settle(engine, pending(engine), NOW_MS + 1000)


def test_held_released_and_revoked(engine: Engine, serial: str) -> None:
    with writing(engine) as session:
        assert hold(session, "default", "gw-01", reason="odd", actor=WHO, now_ms=NOW_MS) == [serial]
    assert state(engine, serial) == (True, ON_HOLD, False)
    obey(engine)
    assert state(engine, serial) == (True, ON_HOLD, True)
    assert [one.serial for one in all_revoked(engine, NOW_MS)] == [int(serial, 16)]
    with writing(engine) as session:
        assert release(session, "default", "gw-01", reason="fine", actor=WHO, now_ms=NOW_MS) == [serial]
    assert state(engine, serial) == (False, TAKEN_BACK, False)
    obey(engine)
    assert state(engine, serial) == (False, "", False)
    assert all_revoked(engine, NOW_MS) == []
    with writing(engine) as session:
        assert revoke(session, "default", "gw-01", reason="gone", actor=WHO, now_ms=NOW_MS) == [serial]
    obey(engine)
    assert state(engine, serial) == (True, "privilegeWithdrawn", True)
    assert pending(engine) == []


def test_an_order_that_was_changed_while_it_was_obeyed_stays_open(engine: Engine, serial: str) -> None:
    with writing(engine) as session:
        hold(session, "default", "gw-01", reason="odd", actor=WHO, now_ms=NOW_MS)
    orders = pending(engine)
    with writing(engine) as session:
        release(session, "default", "gw-01", reason="fine", actor=WHO, now_ms=NOW_MS)
    settle(engine, orders, NOW_MS)
    assert [one.admits for one in pending(engine)] == [True]


def test_a_held_device_that_is_revoked_is_held_no_more(engine: Engine, serial: str) -> None:
    with writing(engine) as session:
        hold(session, "default", "gw-01", reason="odd", actor=WHO, now_ms=NOW_MS)
        assert revoke(session, "default", "gw-01", reason="gone", actor=WHO, now_ms=NOW_MS + 9) == [serial]
        assert session.get(Hold, ("default", "gw-01")) is None
    with Session(engine) as session:
        row = session.get_one(Certificate, ("default", serial))
    assert (row.revoked_ms, row.revoked_reason) == (NOW_MS, "privilegeWithdrawn")


def test_who_is_refused_on_and_on_is_held_once(engine: Engine, serial: str) -> None:
    unit = Quarantine(engine)
    unit.work(0.0)
    for number, now_s in enumerate((10.0, 20.0), 1):
        with writing(engine) as session:
            count = int(REFUSED_AT_ONCE * 2) * number
            for device in ("gw-01", "gw-unregistered", ""):
                session.merge(
                    RefusalCount(
                        tenant="default" if device else "",
                        device=device,
                        count=count,
                        last_ms=NOW_MS,
                        last_reason="junk",
                    )
                )
        unit.work(now_s)
    with Session(engine) as session:
        found = session.get_one(Hold, ("default", "gw-01"))
    assert (found.code, "junk" in found.reason) == (FLOODING, True)
    assert [one.serial for one in pending(engine)] == [serial]
