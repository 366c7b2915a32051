"""Making a broker obey: on a real mosquitto, without the rest of the server, killed and cut off between."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.topics import Channel, topic
from fleet_server import guard
from fleet_server.access.roles import Actor
from fleet_server.authority import passing
from fleet_server.authority.providing import CRL_FILE
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import AuditRecord, Certificate
from fleet_server.database.service import raised
from fleet_server.devices.certificates import certificate_row, serial_text
from fleet_server.errors import NotFound, RevocationConflict
from fleet_server.identity import revocation, revoking
from fleet_server.identity.revocation import FRESH_MS, PORTION, Revocation, pending
from fleet_server.link.mosquitto import PID_FILE, tell_to_reload
from tests.support.batches import register
from tests.support.databases import migrated_sqlite
from tests.support.fleet_broker import ACCEPTED, FleetBroker, Identity, connected
from tests.support.probing import is_let_in
from tests.support.waiting import wait_until

TENANT = "default"
PAST_MS = wall_ms() - 60_000
"""When it was said; long enough ago that it should be obeyed."""

SOMEBODY = Actor("ada", "operator", "127.0.0.1")


class Site:
    """A broker, a database, and devices that have certificates in both."""

    def __init__(self, folder: Path) -> None:
        self.broker = FleetBroker(folder)
        self.engine: Engine = open_engine(migrated_sqlite(folder / "fleet.db"))
        self.known: set[str] = set()

    @property
    def config(self) -> ServerConfig:
        return self.broker.config

    def revocation(self) -> Revocation:
        return Revocation(self.engine, self.config)

    def device(self, name: str) -> Identity:
        """A device; asked for again, it gets a further certificate."""
        if name not in self.known:
            register(self.engine, name)
            self.known.add(name)
        identity = self.broker.device(name)
        with writing(self.engine) as session:
            session.add(certificate_row(TENANT, name, leaf(identity), ""))
        return identity

    def revoke(self, name: str, *serials: str) -> list[str]:
        with writing(self.engine) as session:
            return revoking.revoke(
                session,
                TENANT,
                name,
                serials=serials or None,
                reason="a test",
                actor=SOMEBODY,
                now_ms=PAST_MS,
            )

    def hold(self, name: str) -> list[str]:
        with writing(self.engine) as session:
            return revoking.hold(session, TENANT, name, reason="a test", actor=SOMEBODY, now_ms=PAST_MS)

    def release(self, name: str) -> list[str]:
        with writing(self.engine) as session:
            return revoking.release(session, TENANT, name, reason="over", actor=SOMEBODY, now_ms=PAST_MS + 5)

    def forget_signals(self) -> None:
        """Start the broker anew: what it was told before, and may not have heeded yet, it never does."""
        self.broker.stop()
        self.broker.start()

    def lets_in(self, identity: Identity) -> bool:
        return is_let_in(self.broker.port, identity)


def leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate.read_bytes())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.broker.start()
    yield site
    site.broker.stop()
    site.engine.dispose()


def test_reading_the_list_alone_leaves_a_revoked_client_connected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is why its session is ended, too."""
    device = site.device("gw-stays")
    with connected(site.broker.port, device) as client:
        site.revoke(device.name)
        with monkeypatch.context() as patch:
            patch.setattr(revocation, "evict", lambda *_all: None)
            site.revocation().work()
        assert not site.lets_in(device)
        assert client.publish(topic(device.name, Channel.TELEMETRY)) == ACCEPTED
        passing.evict(site.config, site.broker.authority, device.name)
        assert client.gone.wait(3)


def test_what_was_revoked_goes_and_the_devices_newer_certificate_stays_good(site: Site) -> None:
    stolen, renewed = site.device("gw-renewed"), site.device("gw-renewed")
    with connected(site.broker.port, stolen) as client:
        assert site.revoke("gw-renewed", serial_text(leaf(stolen))) == [serial_text(leaf(stolen))]
        site.revocation().work()
        assert client.gone.wait(3)
    assert not site.lets_in(stolen)
    assert pending(site.engine) == []
    with connected(site.broker.port, renewed) as client:
        assert client.publish(topic("gw-renewed", Channel.TELEMETRY)) == ACCEPTED
    with Session(site.engine) as session:
        assert revoking.is_revoked(session.get(Certificate, (TENANT, serial_text(leaf(stolen)))))
        assert not revoking.is_revoked(session.get(Certificate, (TENANT, serial_text(leaf(renewed)))))
        assert revoking.is_revoked(session.get(Certificate, (TENANT, "feed")))


def test_orders_that_follow_each_other_within_a_second_are_all_obeyed(site: Site) -> None:
    """A list has no finer time than a second."""
    one, other = site.device("gw-one"), site.device("gw-other")
    work = site.revocation().work
    site.hold("gw-one")
    work()
    site.hold("gw-other")
    work()
    assert (site.lets_in(one), site.lets_in(other)) == (False, False)
    site.release("gw-one")
    work()
    assert (site.lets_in(one), site.lets_in(other)) == (True, False)
    assert pending(site.engine) == []


def test_a_guard_that_dies_between_the_list_and_the_end_of_the_session_finishes_afterwards(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_all: object) -> None:
        raise Killed

    device = site.device("gw-halfway")
    with connected(site.broker.port, device) as client:
        site.revoke(device.name)
        with monkeypatch.context() as patch:
            patch.setattr(revocation, "evict", die)
            with pytest.raises(Killed):
                site.revocation().work()
        assert not client.gone.is_set()
        assert [one.device for one in pending(site.engine)] == [device.name]
        site.revocation().work()
        assert client.gone.wait(3)
    assert pending(site.engine) == []


def test_an_order_stays_open_until_a_broker_elsewhere_has_fetched_the_list(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the device is thrown out whenever it comes back."""
    monkeypatch.setattr(revocation, "OBEYED_S", 0.2)
    monkeypatch.setattr(revocation, "AGAIN_S", 0.0)
    device = site.device("gw-elsewhere")
    outside = Revocation(site.engine, replace(site.config, embedded=False))
    site.revoke(device.name)
    for _time in range(2):
        with connected(site.broker.port, device) as client:
            outside.work()
            assert client.gone.wait(3)
        assert len(pending(site.engine)) == 1
    assert tell_to_reload(site.config)  # as if it had fetched it
    monkeypatch.setattr(revocation, "OBEYED_S", 3.0)
    outside.work()
    assert pending(site.engine) == []
    assert not site.lets_in(device)


def test_orders_wait_for_a_broker_that_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "AGAIN_S", 0.0)
    device = site.device("gw-away")
    work = site.revocation().work
    site.broker.stop()
    site.revoke(device.name)
    with monkeypatch.context() as patch:
        patch.setattr(revocation, "OBEYED_S", 0.2)
        work()
    assert len(pending(site.engine)) == 1
    site.broker.start()
    assert not site.lets_in(device)
    work()
    assert pending(site.engine) == []


def test_many_at_once_are_dealt_with_in_portions(site: Site) -> None:
    for _number in range(PORTION + 5):
        site.device("gw-many")
    assert len(site.revoke("gw-many")) == PORTION + 5
    work = site.revocation().work
    work()
    assert len(pending(site.engine)) == 5
    work()
    assert pending(site.engine) == []


def test_the_list_is_made_anew_every_day_whatever_the_clock_does(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = revocation.write_durably
    times = []
    monkeypatch.setattr(revocation, "write_durably", lambda *all_: (times.append(1), written(*all_)))
    (site.config.broker / CRL_FILE).unlink()
    unit, now_ms = site.revocation(), revocation.wall_ms()
    for moved_ms, expected in ((0, 1), (FRESH_MS - 60_000, 1), (FRESH_MS + 60_000, 2), (-FRESH_MS, 3)):
        monkeypatch.setattr(revocation, "wall_ms", lambda moved_ms=moved_ms: now_ms + moved_ms)
        unit.work()
        assert len(times) == expected


def test_a_guard_that_is_started_again_leaves_a_list_of_today_as_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(revocation, "tell_to_reload", told.append)
    list_ = site.config.broker / CRL_FILE
    before = list_.stat().st_mtime_ns
    site.revocation().work()
    assert (list_.stat().st_mtime_ns, told) == (before, [])


def test_nobody_but_the_broker_is_told_to_reload(site: Site) -> None:
    """The signal would end this very process."""
    path = site.config.broker / PID_FILE
    before = path.read_text()
    told: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: told.append(number))
    try:
        for content in (str(os.getpid()), "1", "no number", "999999999"):
            path.write_text(content)
            assert not tell_to_reload(site.config)
    finally:
        path.write_text(before)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert told == []
    assert tell_to_reload(site.config)


def test_every_step_is_in_the_audit_and_impossible_ones_are_refused(site: Site) -> None:
    device = site.device("gw-told")
    work = site.revocation().work
    site.hold("gw-told")
    work()
    site.release("gw-told")
    work()
    site.revoke("gw-told")
    work()
    with Session(site.engine) as session:
        records = session.exec(select(AuditRecord).where(AuditRecord.subject == "gw-told")).all()
        row = session.get_one(Certificate, (TENANT, serial_text(leaf(device))))
    assert [(one.person, one.action) for one in records] == [
        ("ada", "device.hold"),
        ("guard", "certificate.enforce"),
        ("ada", "device.release"),
        ("guard", "certificate.enforce"),
        ("ada", "device.revoke"),
        ("guard", "certificate.enforce"),
    ]
    assert row.enforced_ms is not None
    assert site.revoke("gw-told") == []
    with pytest.raises(RevocationConflict, match="no certificate that counts"):
        site.hold("gw-told")
    with pytest.raises(RevocationConflict, match="not on hold"):
        site.release("gw-told")
    with pytest.raises(NotFound, match="no such certificate"):
        site.revoke("gw-told", "feed")
    with pytest.raises(NotFound, match="no device"):
        site.hold("gw-nobody")


def test_an_order_that_is_not_obeyed_in_time_is_told_and_so_is_that_it_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def codes() -> set[str]:
        return {one.code for one in raised(site.engine, wall_ms())} & {"revocation.stuck"}

    monkeypatch.setattr(revocation, "OBEYED_S", 0.2)
    monkeypatch.setattr(revocation, "AGAIN_S", 0.0)
    site.forget_signals()
    site.device("gw-stuck")
    site.revoke("gw-stuck")
    unit = guard.Guard(site.engine, replace(site.config, embedded=False))
    unit.round()
    assert codes() == {"revocation.stuck"}
    wait_until(lambda: tell_to_reload(site.config), "the broker knows the signal")
    monkeypatch.setattr(revocation, "OBEYED_S", 3.0)
    unit.round()
    assert codes() == set()


def test_a_release_that_is_not_obeyed_in_time_is_told_also_by_a_guard_that_was_started_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.device("gw-back")
    site.hold("gw-back")
    site.revocation().work()
    site.forget_signals()
    monkeypatch.setattr(revocation, "OBEYED_S", 0.2)
    site.release("gw-back")
    now = wall_ms()
    monkeypatch.setattr(guard, "wall_ms", lambda: now)
    elsewhere = replace(site.config, embedded=False)  # its broker is never told to read the list
    guard.Guard(site.engine, elsewhere).round()
    assert "revocation.stuck" not in {one.code for one in raised(site.engine, wall_ms())}
    monkeypatch.setattr(guard, "wall_ms", lambda: now + guard.OVERDUE_MS)
    guard.Guard(site.engine, elsewhere).round()
    assert "revocation.stuck" in {one.code for one in raised(site.engine, wall_ms())}


def test_an_authority_that_cannot_be_used_is_told_even_with_nothing_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A list that is never renewed ends, and then nobody gets in."""
    monkeypatch.setattr(guard, "OVERDUE_MS", 0)
    unit = guard.Guard(site.engine, replace(site.config, data=tmp_path))
    unit.round()
    (code,) = [one for one in raised(site.engine, wall_ms()) if one.code == "revocation.stuck"]
    assert str(tmp_path) in code.detail
