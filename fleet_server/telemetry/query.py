"""What is stored, read back for people: the latest values, histories, events, flows and counts.

Every time is in ms since 1970 UTC. ``clock_state`` says how far ``time_ms`` is to be believed
(:class:`fleet_server.telemetry.placing.Placement`). A device without data gives empty answers.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, Select, Table, and_, func, select

from fleet_server.access.roles import Scope
from fleet_server.database.models import (
    Batch,
    Device,
    Event,
    Gap,
    IngestCursor,
    Metric,
    PendingBatch,
    RefusalCount,
    inference,
    reading,
)
from fleet_server.devices.scope import ALL, among

_BATCH: Final = Batch.__table__  # type: ignore[attr-defined]

SAMPLE: Final = 200_000
"""Readings that a latency figure looks at, at most."""


@dataclass(frozen=True, slots=True)
class ReadingView:
    """One reading; ``received_ms`` and ``stored_ms`` are by the server's clock."""

    metric: str
    unit: str
    kind: int
    time_ms: int
    value: float | None
    quality: int
    clock_state: int
    received_ms: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class InferenceView:
    """One answer of a model.

    ``request`` is the question that it went out with, or that it answers: then it ``supersedes`` the
    first, and its model is the central one. One in ``shadow`` is not the device's answer.
    """

    time_ms: int
    model: str
    version: str
    label: str
    score: float
    confidence: float
    latency_us: int
    uncertain: bool
    request: str
    supersedes: bool
    shadow: bool
    clock_state: int
    received_ms: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class EventView:
    """One event; ``id`` grows in the order of storing."""

    id: int
    device: str
    time_ms: int
    name: str
    severity: int
    text: str
    source: str
    figures: dict[str, float]
    clock_state: int


@dataclass(frozen=True, slots=True)
class GapView:
    """Batches that the device dropped: ``batches`` of the numbers ``first`` to ``last``."""

    first: int
    last: int
    batches: int
    records: int
    reason: str
    oldest_wall_ms: int
    newest_wall_ms: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class StreamView:
    """One flow: committed up to where, ahead of that (ranges), told as lost, and how many rows it brought."""

    epoch: str
    stream: str
    contiguous: int
    moved_ms: int
    pending: tuple[tuple[int, int], ...]
    gaps: tuple[GapView, ...]
    readings: int
    inferences: int
    events: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything ever stored, and what was refused or lost."""

    devices: int
    readings: int
    inferences: int
    events: int
    lost_batches: int
    lost_records: int
    refused: int


@dataclass(frozen=True, slots=True)
class Latency:
    """From sensor read to row, in ms, over ``readings`` readings with a trusted time."""

    readings: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class RefusalView:
    """How many messages of a device were refused; an empty device stands for all unknown ones."""

    device: str
    count: int
    last_ms: int
    last_reason: str


def latest(engine: Engine, device: str) -> list[ReadingView]:
    """The newest reading of each metric, by name."""
    with engine.connect() as connection:
        found = [
            row
            for metric in connection.execute(_metrics(device))
            for row in connection.execute(_readings_of([metric.id]).limit(1))
        ]
    return [_reading(row) for row in found]


def readings(
    engine: Engine, device: str, metric: str, since_ms: int, until_ms: int, limit: int
) -> list[ReadingView]:
    """The newest ``limit`` readings of a metric from ``since_ms`` to before ``until_ms``, oldest first."""
    with engine.connect() as connection:
        ids = [row.id for row in connection.execute(_metrics(device).where(Metric.name == metric))]  # type: ignore[arg-type]
        statement = _readings_of(ids).where(reading.c.time_ms >= since_ms, reading.c.time_ms < until_ms)
        return [_reading(row) for row in reversed(connection.execute(statement.limit(limit)).all())]


def inferences(
    engine: Engine, device: str, since_ms: int, until_ms: int, limit: int, *, shadow: bool = False
) -> list[InferenceView]:
    """The newest ``limit`` answers of a device from ``since_ms`` to before ``until_ms``, oldest first.

    With ``shadow`` those that its models in shadow gave, and nothing came of, instead of its own.
    """
    columns = [_column(inference, name) for name in InferenceView.__dataclass_fields__]
    with engine.connect() as connection:
        statement = (
            select(*columns)
            .join(_BATCH, _came_with(inference))
            .where(
                inference.c.tenant == _tenant(connection, device),
                inference.c.device == device,
                inference.c.shadow.is_(shadow),
                inference.c.time_ms >= since_ms,
                inference.c.time_ms < until_ms,
            )
            .order_by(inference.c.time_ms.desc())
            .limit(limit)
        )
        return [InferenceView(*row) for row in reversed(connection.execute(statement).all())]


def events(
    engine: Engine, tenant: str, since_ms: int, after_id: int, limit: int, scopes: Collection[Scope] = ALL
) -> list[EventView]:
    """Up to ``limit`` events from ``since_ms`` on, stored after event ``after_id``, in that order.

    Those of devices outside ``scopes`` are left out.
    """
    table = Event.__table__  # type: ignore[attr-defined]
    columns = [table.c[name] for name in EventView.__dataclass_fields__]
    statement = (
        select(*columns)
        .where(table.c.tenant == tenant, table.c.id > after_id, table.c.time_ms >= since_ms)
        .where(among(table.c.device, tenant, scopes))
        .order_by(table.c.id)
        .limit(limit)
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).mappings().all()
    return [EventView(**(dict(row) | {"figures": json.loads(row["figures"])})) for row in rows]


def streams(engine: Engine, device: str) -> list[StreamView]:
    """Every flow of a device, the one that moved last first."""
    cursor = IngestCursor.__table__  # type: ignore[attr-defined]
    with engine.connect() as connection:
        statement = (
            select(cursor)
            .where(cursor.c.tenant == _tenant(connection, device), cursor.c.device == device)
            .order_by(cursor.c.moved_ms.desc(), cursor.c.id.desc())
        )
        return [_stream(connection, row) for row in connection.execute(statement).all()]


def counts(engine: Engine, tenant: str, scopes: Collection[Scope] = ALL) -> Counts:
    """Totals of the devices within ``scopes``; summed from the cursors: nobody counts a million rows.

    What devices that nobody knows were refused is told to whoever sees everything.
    """
    cursor = IngestCursor.__table__  # type: ignore[attr-defined]
    gap = Gap.__table__  # type: ignore[attr-defined]
    refused = RefusalCount.__table__  # type: ignore[attr-defined]
    device = Device.__table__  # type: ignore[attr-defined]

    def seen(table: Table) -> ColumnElement[bool]:
        name = table.c.id if table is device else table.c.device
        return and_(table.c.tenant == tenant, among(name, tenant, scopes))

    with engine.connect() as connection:
        devices = connection.execute(select(func.count()).where(seen(device))).scalar_one()
        sums = _sums(cursor.c.readings, cursor.c.inferences, cursor.c.events)
        rows = connection.execute(sums.where(seen(cursor))).one()
        lost = connection.execute(_sums(gap.c.batches, gap.c.records).where(seen(gap))).one()
        refusals_ = connection.execute(_sums(refused.c["count"]).where(seen(refused))).one()
    return Counts(devices, *map(int, (*rows, *lost, *refusals_)))


def latency(engine: Engine, tenant: str, since_ms: int, scopes: Collection[Scope] = ALL) -> Latency | None:
    """How long readings of devices within ``scopes`` since ``since_ms`` took to their row; None without any.

    The row is stamped as its transaction begins to write; the commit itself comes on top.
    """
    metric = Metric.__table__  # type: ignore[attr-defined]
    metric_ids = select(metric.c.id).where(metric.c.tenant == tenant, among(metric.c.device, tenant, scopes))
    statement = (
        select(_BATCH.c.stored_ms - reading.c.time_ms)
        .select_from(reading)
        .join(_BATCH, _came_with(reading))
        .where(reading.c.metric.in_(metric_ids), reading.c.time_ms >= since_ms, reading.c.clock_state == 0)
        .limit(SAMPLE)
    )
    with engine.connect() as connection:
        waits = sorted(connection.scalars(statement))
    if not waits:
        return None
    return Latency(len(waits), float(waits[len(waits) // 2]), float(waits[len(waits) * 99 // 100]))


def refusals(engine: Engine) -> list[RefusalView]:
    """What was refused, the latest first."""
    table = RefusalCount.__table__  # type: ignore[attr-defined]
    statement = select(table.c.device, table.c["count"], table.c.last_ms, table.c.last_reason)
    with engine.connect() as connection:
        rows = connection.execute(statement.order_by(table.c.last_ms.desc())).all()
    return [RefusalView(*row) for row in rows]


def _tenant(connection: Connection, device: str) -> str | None:
    table = Device.__table__  # type: ignore[attr-defined]
    return connection.scalar(select(table.c.tenant).where(table.c.id == device))


def _metrics(device: str) -> Select[Any]:
    metric, owner = Metric.__table__, Device.__table__  # type: ignore[attr-defined]
    return (
        select(metric.c.id)
        .join(owner, (owner.c.tenant == metric.c.tenant) & (owner.c.id == metric.c.device))
        .where(owner.c.id == device)
        .order_by(metric.c.name, metric.c.id)
    )


def _readings_of(metrics: list[int]) -> Select[Any]:
    metric = Metric.__table__  # type: ignore[attr-defined]
    return (
        select(reading, metric.c.name, metric.c.unit, metric.c.kind, _BATCH.c.received_ms, _BATCH.c.stored_ms)
        .join(metric, metric.c.id == reading.c.metric)
        .join(_BATCH, _came_with(reading))
        .where(reading.c.metric.in_(metrics))
        .order_by(reading.c.time_ms.desc())
    )


def _column(table: Table, name: str) -> Column[Any]:
    return table.c[name] if name in table.c else _BATCH.c[name]


def _came_with(table: Table) -> ColumnElement[bool]:
    return and_(_BATCH.c.cursor == table.c.cursor, _BATCH.c.seq == table.c.seq)


def _reading(row: Row[Any]) -> ReadingView:
    return ReadingView(
        row.name, row.unit, row.kind, row.time_ms, row.value, row.quality, row.clock_state,
        row.received_ms, row.stored_ms,
    )  # fmt: skip


def _stream(connection: Connection, row: Row[Any]) -> StreamView:
    pending = PendingBatch.__table__  # type: ignore[attr-defined]
    gap = Gap.__table__  # type: ignore[attr-defined]
    ahead = connection.execute(
        select(pending.c.first, pending.c.last).where(pending.c.cursor == row.id).order_by(pending.c.first)
    )
    told = connection.execute(
        select(*(gap.c[name] for name in GapView.__dataclass_fields__))
        .where(gap.c.cursor == row.id)
        .order_by(gap.c.first)
    )
    return StreamView(
        row.epoch, row.stream, row.contiguous, row.moved_ms, tuple((first, last) for first, last in ahead),
        tuple(GapView(*one) for one in told), row.readings, row.inferences, row.events,
    )  # fmt: skip


def _sums(*columns: Any) -> Select[Any]:
    return select(*(func.coalesce(func.sum(column), 0) for column in columns))
