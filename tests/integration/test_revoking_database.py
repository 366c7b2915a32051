"""What revoking writes down, on both databases; no broker is asked here."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from sqlalchemy import Engine
from sqlmodel import Session, select, text

from fleet_server.access.roles import Actor, Permission, RoleName
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Device, Hold, RefusalCount
from fleet_server.devices.certificates import all_revoked, certificate_row, serial_text
from fleet_server.errors import ManyRevocations, RevocationConflict
from fleet_server.identity.mass_revocation import ALONE, plan, require_few
from fleet_server.identity.quarantine import REFUSED_AT_ONCE, Quarantine
from fleet_server.identity.revocation import pending, settle
from fleet_server.identity.revoking import FLOODING, ON_HOLD, TAKEN_BACK, hold, release, revoke
from tests.support.batches import register
from tests.support.fleet_broker import FleetBroker
from tests.support.people import add_person, caller
from tests.support.waiting import wait_until

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


def certify(engine: Engine, device: str, serial: str) -> None:
    with writing(engine) as session:
        session.add(row_of(device, serial))


def row_of(device: str, serial: str) -> Certificate:
    return Certificate(
        tenant="default", serial=serial, device=device, sha256="", key_sha256=serial, issuer="",
        trust_sha256="", pem="", not_before_ms=1, not_after_ms=2,
    )  # fmt: skip


@pytest.mark.attack
def test_many_at_once_put_out_no_more_than_one_person_may(engine: Engine) -> None:
    """Whoever steals an operator's token cannot stop the fleet by asking for all of it in one moment."""
    devices = [f"gw-{number:02}" for number in range(4 * ALONE)]
    for name in devices:
        register(engine, name)
        certify(engine, name, name)
    thief = caller(engine, add_person(engine, "ola", RoleName.OPERATOR))
    together = threading.Barrier(len(devices), timeout=30)

    def put_out(device: str) -> bool:
        together.wait()
        try:
            with writing(engine) as session:
                require_few(session, thief, device, wall_ms())
                actor = thief.actor(Permission.DEVICE_REVOKE)
                revoke(session, "default", device, reason="x", actor=actor, now_ms=wall_ms())
        except ManyRevocations:
            return False
        return True

    with ThreadPoolExecutor(len(devices)) as pool:
        assert sum(pool.map(put_out, devices)) == ALONE


def test_a_certificate_that_is_being_renewed_is_among_those_that_are_revoked(engine: Engine) -> None:
    register(engine, "gw-01")
    certify(engine, "gw-01", "old")
    found: list[object] = []

    def ask() -> None:
        with writing(engine) as session:
            found.append(plan(session, "default", "p", {"devices": ["gw-01"]}).carry()[0].before)

    asking = threading.Thread(target=ask)
    with writing(engine) as session:
        # As a renewal does it: hold the device, then write its next certificate.
        session.exec(select(Device).where(Device.id == "gw-01").with_for_update(key_share=True)).one()
        session.add(row_of("gw-01", "new"))
        session.flush()
        asking.start()
        wait_until(lambda: bool(found) or is_waited_for(engine), "the other one waits")
    asking.join(30)
    assert found == [["new", "old"]]


def test_a_device_on_hold_that_is_revoked_among_many_is_not_released_again(engine: Engine) -> None:
    for name in ("gw-01", "gw-02"):
        register(engine, name)
        certify(engine, name, name)
    with writing(engine) as session:
        hold(session, "default", "gw-01", reason="odd", actor=WHO, now_ms=NOW_MS)
    with writing(engine) as session:
        plan(session, "default", "p", {"devices": ["gw-01", "gw-02"]}).carry()
    assert state(engine, "gw-01")[1] == state(engine, "gw-02")[1] == "privilegeWithdrawn"
    with writing(engine) as session, pytest.raises(RevocationConflict):
        release(session, "default", "gw-01", reason="fine", actor=WHO, now_ms=NOW_MS)


def is_waited_for(engine: Engine) -> bool:
    """Whether somebody waits for a lock; of SQLite nobody can tell, and it has one writer at a time."""
    if engine.dialect.name == "sqlite":
        return True
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())
