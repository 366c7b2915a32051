"""Batches, arrivals and devices for tests of ingest."""

from collections.abc import Sequence

from sqlalchemy import Engine

from fleet_protocol.messages import (
    ClockState,
    Event,
    Events,
    Gap,
    Inference,
    Message,
    Metric,
    Reading,
    Severity,
    Telemetry,
    TimeBase,
    encode,
)
from fleet_protocol.topics import Channel, topic
from fleet_server.database.engine import writing
from fleet_server.database.models import Device, Tenant
from fleet_server.link.mqtt import Arrival

EPOCH = "00000000000000e1"
BOOT = "000000000000b001"
NOW_MS = 1_800_000_000_000

PRESSURE = Metric(0, "pressure", "bar")
FLOW = Metric(1, "flow", "l/s")


def register(engine: Engine, *devices: str, tenant: str = "default") -> None:
    with writing(engine) as session:
        session.merge(Tenant(id=tenant, name=tenant, created_ms=NOW_MS))
        session.flush()
        for device in devices:
            session.add(Device(tenant=tenant, id=device, profile="simulated", created_ms=NOW_MS))


def base(wall_ms: int = NOW_MS, clock: ClockState = ClockState.TRUSTED, mono_ms: int = 1_000_000) -> TimeBase:
    return TimeBase(BOOT, mono_ms, wall_ms, clock)


def telemetry(seq: int, epoch: str = EPOCH, *, at: TimeBase | None = None, define: bool | None = None,
              readings: int = 2, inferences: int = 0) -> Telemetry:  # fmt: skip
    """A batch whose values tell its number; the first of an epoch defines the metrics."""
    defines = seq == 1 if define is None else define
    return Telemetry(
        epoch, seq, at or base(),
        [PRESSURE, FLOW] if defines else [],
        [Reading(n % 2, n * 10, float(seq * 1000 + n)) for n in range(readings)],
        [Inference(0, "leak", "1", "normal", 0.1, 0.9, 120) for _ in range(inferences)],
    )  # fmt: skip


def events(seq: int, epoch: str = EPOCH, *, at: TimeBase | None = None) -> Events:
    raised = Event(0, "leak", Severity.WARNING, f"leak {seq}", "policy", {"score": 0.9})
    return Events(epoch, seq, at or base(), [raised])


def gap(first: int, last: int, epoch: str = EPOCH, records: int = 0) -> Gap:
    return Gap(epoch, last, first, records, "quota", NOW_MS - 1000, NOW_MS, [PRESSURE, FLOW])


def arrival(message: Message | bytes, device: str = "gw-01", channel: Channel | None = None, *,
            received_ms: int = NOW_MS + 5, sent: str | None = None,
            retain: bool = False) -> Arrival:  # fmt: skip
    if channel is None:
        channel = Channel.EVENT if isinstance(message, Events) else Channel.TELEMETRY
    payload = message if isinstance(message, bytes) else encode(message)
    return Arrival(topic(device, channel), payload, retain, received_ms, 0, None, sent, None)


def arrivals(messages: Sequence[Message], device: str = "gw-01") -> list[Arrival]:
    return [arrival(message, device) for message in messages]
