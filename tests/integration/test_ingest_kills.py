"""Nothing acknowledged is lost and nothing is doubled, whatever is killed: real broker, real process."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from fleet_protocol.messages import Stream
from fleet_server.database.models import metadata
from fleet_server.telemetry import query
from tests.support.batches import EPOCH, events, gap, telemetry
from tests.support.ingesting import Device, IngestSite, ingest_site
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

KILLS = 20
DEVICES = ("gw-01", "gw-02", "gw-03")


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[IngestSite]:
    folder = tmp_path / "server"
    folder.mkdir()
    with ingest_site(folder, database_url) as site:
        yield site


def work_for(devices: list[Device], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for device in devices:
            device.work()


def finish(devices: list[Device]) -> None:
    def all_done() -> bool:
        for device in devices:
            device.work()
        return all(device.is_done for device in devices)

    wait_until(all_done, "everything acknowledged", 60)


def assert_exactly_once(site: IngestSite, devices: list[Device]) -> None:
    expected = {
        (epoch, stream.value, seq)
        for device in devices
        for (epoch, stream), batches in device.kept.items()
        for seq in batches
    }
    stored = site.batches()
    assert set(stored) == expected, "lost or invented"
    assert set(stored.values()) == {1}, "doubled"


def assert_marks_are_true(site: IngestSite, device: Device) -> None:
    """What is acknowledged so far is in the database now, whole."""
    stored = site.batches()
    for (epoch, stream), mark in device.marks.items():
        missing = [seq for seq in range(1, mark + 1) if not stored[epoch, stream.value, seq]]
        assert not missing, f"acknowledged up to {mark}, but {missing} are not stored"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ingest_killed_at_random_loses_and_doubles_nothing(site: IngestSite) -> None:
    chance = random.Random(11)
    devices = [site.device(name) for name in DEVICES]
    for number in range(KILLS):
        for place, device in enumerate(devices):
            epoch = f"{place * 100 + number // 7:016x}"
            start = number % 7 * 60 + 1
            device.add(*(telemetry(seq, epoch) for seq in range(start, start + 60)))
            device.add(*(events(seq, epoch) for seq in range(start, start + 60, 1)))
        work_for(devices, chance.uniform(0.0, 0.25))
        wait_until(lambda: devices[0].work() or devices[0].marks, "ingest works") if number == 0 else None
        site.kill_ingest()
        for device in devices:
            device.work()
            assert_marks_are_true(site, device)
        site.start_ingest()
    finish(devices)
    assert_exactly_once(site, devices)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_broker_killed_loses_and_doubles_nothing(site: IngestSite) -> None:
    devices = [site.device(name) for name in DEVICES]
    for number in range(4):
        for place, device in enumerate(devices):
            start = number * 80 + 1
            device.add(*(telemetry(seq, f"{place:016x}") for seq in range(start, start + 80)))
        work_for(devices, 0.4)
        site.kill_broker()
        site.broker.start()
    finish(devices)
    assert_exactly_once(site, devices)


def test_nothing_is_acknowledged_while_the_database_is_locked(site: IngestSite, database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("another process's lock is SQLite's way to be unavailable")
    device = site.device("gw-01")
    device.add(telemetry(1))
    device.work_until_acknowledged()
    with site.engine.execution_options(write_first=True).connect() as connection, connection.begin():
        device.add(*(telemetry(seq) for seq in range(2, 30)))
        work_for([device], 1.0)
        assert device.marks == {(EPOCH, Stream.TELEMETRY): 1}
    finish([device])
    assert_exactly_once(site, [device])


@pytest.mark.slow
def test_the_broker_keeps_what_is_not_committed(site: IngestSite, database_url: str) -> None:
    """The device sends once and never again: only the withheld PUBACK can bring the batch back."""
    if not database_url.startswith("sqlite"):
        pytest.skip("another process's lock is SQLite's way to be unavailable")
    device = site.device("gw-01")
    with site.engine.execution_options(write_first=True).connect() as connection, connection.begin():
        device.send([telemetry(1)])
        wait_until(lambda: device.work() or "cannot be written" in site.log, "ingest holds it in vain")
        site.kill_ingest()
    site.start_ingest()
    wait_until(lambda: site.batches()[EPOCH, "telemetry", 1], "stored")


def test_a_hole_is_never_acknowledged_over(site: IngestSite) -> None:
    device = site.device("gw-01")
    device.send([telemetry(n) for n in (1, 2, 4, 5)])
    wait_until(lambda: device.work() or device.marks.get((EPOCH, Stream.TELEMETRY)) == 2, "mark 2")
    wait_until(lambda: site.batches()[EPOCH, "telemetry", 5], "5 is stored ahead of the mark")
    device.send([telemetry(5)])
    wait_until(lambda: device.work() or len(device.acknowledged) > 1, "the duplicate is acknowledged")
    assert max(seq for _epoch, _stream, seq in device.acknowledged) == 2
    device.send([telemetry(3)])
    wait_until(lambda: device.work() or device.marks[EPOCH, Stream.TELEMETRY] == 5, "mark 5")


def test_a_told_gap_lets_the_mark_pass(site: IngestSite) -> None:
    device = site.device("gw-01")
    device.send([telemetry(1), telemetry(6)])
    device.send([gap(2, 5, records=8)])
    wait_until(lambda: device.work() or device.marks.get((EPOCH, Stream.TELEMETRY)) == 6, "mark 6")
    (flow,) = query.streams(site.engine, "gw-01")
    assert [(one.first, one.last, one.batches, one.records) for one in flow.gaps] == [(2, 5, 4, 8)]


def test_two_ingests_take_over_from_each_other(site: IngestSite) -> None:
    """A restart that overlaps: the second process takes the session, the first one must not double."""
    devices = [site.device(name) for name in DEVICES]
    for place, device in enumerate(devices):
        device.add(*(telemetry(seq, f"{place:016x}") for seq in range(1, 150)))
    work_for(devices, 0.3)
    first = site.ingest
    assert first is not None
    began_ms = time.time_ns() // 1_000_000
    site.start_ingest()
    while not site.has_begun(began_ms):
        work_for(devices, 0.05)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    finish(devices)
    assert_exactly_once(site, devices)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_database_that_crashes_loses_and_doubles_nothing(tmp_path: Path, postgres: PostgresServer) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with ingest_site(folder, postgres.url(postgres.new_database(postgres.template))) as site:
        device = site.device("gw-01")
        for number in range(3):
            device.add(*(telemetry(seq) for seq in range(number * 60 + 1, number * 60 + 61)))
            work_for([device], 0.4)
            postgres.stop(signal.SIGQUIT)
            work_for([device], 0.4)
            postgres.start()
        finish([device])
        assert_exactly_once(site, [device])
        health = metadata.tables["server_health"]
        with site.engine.connect() as connection:
            told = connection.execute(select(health).where(health.c.code == "database.down")).one()
        assert (told.count > 0, told.cleared_ms >= told.since_ms) == (True, True)
        assert "cannot be written" in told.detail
