"""What a hostile or broken device sends through the real broker: ingest lives, counts, and goes on."""

from collections.abc import Iterator
from pathlib import Path

import mqtt5
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from fleet_protocol.messages import ClockState, Format, Reported, SpoolReport, Status, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.database.models import metadata
from fleet_server.telemetry import query
from fleet_server.telemetry.placing import Placement
from tests.support.batches import BOOT, EPOCH, NOW_MS, base, events, telemetry
from tests.support.databases import migrated_sqlite
from tests.support.ingesting import Device, IngestSite, ingest_site
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestSite]:
    folder: Path = tmp_path_factory.mktemp("server")
    with ingest_site(folder, migrated_sqlite(folder / "fleet.db")) as site:
        yield site


@pytest.fixture(scope="module")
def device(site: IngestSite) -> Device:
    return site.device("gw-01")


def raw(device: Device, channel: Channel, payload: bytes, **properties: object) -> None:
    """Publish as no agent would."""
    wait_until(lambda: device.work() or device.link.is_connected, "connected")
    packet = mqtt5.PublishPacket(topic(device.name, channel), payload, **properties)  # type: ignore[arg-type]
    device.link._outgoing += packet.write()
    device.link.tend(0.0)


def refused(site: IngestSite, name: str = "gw-01") -> int:
    return sum(one.count for one in query.refusals(site.engine) if one.device == name)


def count(site: IngestSite, table: str) -> int:
    with site.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0


def prove_alive(site: IngestSite, device: Device) -> None:
    """A good batch of a new epoch still goes the whole way, in the same process."""
    epoch = f"{count(site, 'ingest_cursor') + 0xA000:016x}"
    device.add(telemetry(1, epoch))
    device.work_until_acknowledged(20)
    assert site.ingest is not None
    assert site.ingest.poll() is None, site.log


JUNK = [
    b"",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"[" * 100_000,
    msgspec.msgpack.encode(["t2", EPOCH, 1]),
    msgspec.msgpack.encode(["t1", EPOCH, -1, [BOOT, 0, 0, 0], [], [], []]),
    msgspec.msgpack.encode(["t1", EPOCH, 1, [BOOT, 0, NOW_MS, 0], [], [[0, 0, float("nan"), 0]], []]),
    encode(telemetry(1), Format.JSON),
    encode(events(1)),
]


@pytest.mark.attack
@pytest.mark.parametrize("payload", JUNK, ids=range(len(JUNK)))
def test_what_is_no_telemetry_is_refused_and_counted(
    site: IngestSite, device: Device, payload: bytes
) -> None:
    before = refused(site)
    raw(device, Channel.TELEMETRY, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=9)
    wait_until(lambda: refused(site) == before + 1, "counted")
    prove_alive(site, device)


@pytest.mark.attack
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=300), channel=st.sampled_from([Channel.TELEMETRY, Channel.EVENT,
       Channel.STATUS, Channel.REPORTED]), retain=st.booleans(), cut=st.integers(0, 80))  # fmt: skip
def test_no_bytes_stop_ingest(
    site: IngestSite, device: Device, payload: bytes, channel: Channel, *, retain: bool, cut: int
) -> None:
    mutant = encode(telemetry(1))[:cut] + payload
    raw(device, channel, mutant, retain=retain, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=9)
    prove_alive(site, device)


@pytest.mark.attack
def test_flags_and_properties_that_no_agent_sets_are_refused(site: IngestSite, device: Device) -> None:
    good = encode(telemetry(1, "00000000000000f1"))
    before = refused(site)
    raw(device, Channel.TELEMETRY, good, retain=True)
    raw(device, Channel.TELEMETRY, good, response_topic=topic("gw-02", Channel.ANSWER))
    raw(device, Channel.TELEMETRY, good, content_type="text/html")
    wait_until(lambda: refused(site) == before + 3, "all three are counted")
    assert EPOCH not in {
        flow.epoch for flow in query.streams(site.engine, "gw-01") if flow.epoch == "00000000000000f1"
    }
    prove_alive(site, device)


def test_json_is_taken_where_the_content_type_says_so(site: IngestSite, device: Device) -> None:
    epoch = "00000000000000f2"
    raw(device, Channel.TELEMETRY, encode(telemetry(1, epoch), Format.JSON), content_type=Format.JSON.value)
    wait_until(lambda: site.batches()[epoch, "telemetry", 1], "stored")


@pytest.mark.attack
def test_an_unknown_device_is_refused_and_gets_no_acknowledgement(site: IngestSite, device: Device) -> None:
    stranger = site.stranger("gw-99")
    before = refused(site, "")
    stranger.send([telemetry(1)])
    wait_until(lambda: stranger.work() or refused(site, "") > before, "counted")
    prove_alive(site, device)
    stranger.work()
    assert stranger.acknowledged == []


@pytest.mark.parametrize(
    ("wall_ms", "epoch"), [(0, "00000000000000c1"), (4_070_908_800_000, "00000000000000c2")]
)
def test_a_wrong_clock_is_repaired_by_the_age_of_the_message(
    site: IngestSite, device: Device, wall_ms: int, epoch: str
) -> None:
    batch = encode(telemetry(1, epoch, at=base(wall_ms, ClockState.TRUSTED, 5000)))
    raw(device, Channel.TELEMETRY, batch, user_properties=[("sent", f"{BOOT}:65000")])
    wait_until(lambda: site.batches()[epoch, "telemetry", 1], "stored")
    reading, cursor, stored = (metadata.tables[name] for name in ("reading", "ingest_cursor", "batch"))
    with site.engine.connect() as connection:
        rows = connection.execute(
            select(reading.c.time_ms, reading.c.clock_state, stored.c.received_ms)
            .join(cursor, cursor.c.id == reading.c.cursor)
            .join(stored, (stored.c.cursor == cursor.c.id) & (stored.c.seq == reading.c.seq))
            .where(cursor.c.epoch == epoch)
            .order_by(reading.c.time_ms)
        ).all()
    assert [(row.received_ms - row.time_ms, row.clock_state) for row in rows] == [
        (60_000, Placement.REPAIRED), (59_990, Placement.REPAIRED),
    ]  # fmt: skip


def test_status_and_reported_reach_the_twin(site: IngestSite, device: Device) -> None:
    status = Status(online=True, boot_id=BOOT, epoch=EPOCH, agent="0.1.0", wall_ms=NOW_MS)
    reported = Reported(
        agent="0.1.0", profile="simulated", boot_id=BOOT, epoch=EPOCH, wall_ms=NOW_MS,
        clock=ClockState.TRUSTED, sensors=[], models=[], health=[],
        spool=SpoolReport(batches=0, bytes=0, dropped_records=0),
    )  # fmt: skip
    raw(device, Channel.STATUS, encode(status), retain=True)
    raw(device, Channel.REPORTED, encode(reported), retain=True)
    twin = metadata.tables["twin"]

    def halves() -> set[str]:
        with site.engine.connect() as connection:
            return set(connection.scalars(select(twin.c.half)))

    wait_until(lambda: halves() == {"status", "reported"}, "both halves")
