"""What devices measured and concluded, and which numbered batches of it are committed.

``reading`` and ``inference`` are plain tables without a unique key: doubles are kept out by the
cursor that moves in the same transaction, because a unique key cannot live on time partitions
without the time, and more than halves the rate. A row names its flow by ``cursor`` (and so the
device's process by its epoch) and its batch in it by ``seq``; what is the same for a whole batch
stands once, in ``batch``.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device, row_number


class Metric(Model, table=True):
    """What one series of a device measures; a new unit is a new metric."""

    __table_args__ = (UniqueConstraint("tenant", "device", "name", "unit", "kind"), of_device())

    id: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    name: str = Field(max_length=64)
    unit: str = Field(max_length=200)
    kind: int = Field(sa_type=SmallInteger)


class MetricBinding(Model, table=True):
    """Which metric a device's small integer stands for in one epoch."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    epoch: str = Field(primary_key=True, max_length=16)
    number: int = Field(primary_key=True)
    metric: int = integer(foreign_key="metric.id")


class IngestCursor(Model, table=True):
    """The highest contiguous number committed of one flow; it is moved with the rows themselves.

    ``readings``, ``inferences`` and ``events`` count the rows that came with it.
    """

    __table_args__ = (UniqueConstraint("tenant", "device", "epoch", "stream"), of_device())

    id: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    epoch: str = Field(max_length=16)
    stream: str = Field(max_length=16)
    contiguous: int = integer(default=0)
    moved_ms: int = integer()
    readings: int = integer(default=0)
    inferences: int = integer(default=0)
    events: int = integer(default=0)


class Batch(Model, table=True):
    """A committed batch: when it was received, and when its transaction began to write."""

    # Ordered by its key and nothing else: a flow's batches are appended, and read, in a row.
    __table_args__ = ({"sqlite_with_rowid": False},)

    tenant: str = Field(max_length=63)
    cursor: int = integer(primary_key=True)
    seq: int = integer(primary_key=True)
    received_ms: int = integer()
    stored_ms: int = integer()


class PendingBatch(Model, table=True):
    """Numbers ``first`` to ``last`` committed ahead of their flow's contiguous mark."""

    __table_args__ = (ForeignKeyConstraint(["cursor"], ["ingest_cursor.id"]),)

    tenant: str = Field(max_length=63)
    cursor: int = integer(primary_key=True)
    first: int = integer(primary_key=True)
    last: int = integer()


class Gap(Model, table=True):
    """Batches that the device had to drop. ``records`` is what the device told for all it dropped at once."""

    __table_args__ = (
        ForeignKeyConstraint(["cursor"], ["ingest_cursor.id"]),
        Index(None, "tenant", "device", "received_ms"),
    )

    id: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    cursor: int = integer(index=True)
    first: int = integer()
    last: int = integer()
    batches: int = integer()
    records: int = integer()
    reason: str = Field(max_length=64)
    oldest_wall_ms: int = integer()
    newest_wall_ms: int = integer()
    received_ms: int = integer()


class Event(Model, table=True):
    """What a policy rule or the agent raised; ``figures`` is a JSON object of the numbers behind it."""

    __table_args__ = (
        Index(None, "tenant", "time_ms"),
        Index(None, "tenant", "device", "time_ms"),
        of_device(),
    )

    id: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    time_ms: int = integer()
    name: str = Field(max_length=64)
    severity: int = Field(sa_type=SmallInteger)
    text: str = Field(max_length=200)
    source: str = Field(max_length=200)
    figures: str = Field(sa_type=Text)
    clock_state: int = Field(sa_type=SmallInteger)
    cursor: int = integer()
    seq: int = integer()


class Presence(Model, table=True):
    """When a device was last heard, by the server's clock."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    heard_ms: int = integer()


def _placed() -> tuple[Column[Any], ...]:
    """When it was, how far that time is to be believed, and by which batch it came."""
    return (
        Column("time_ms", BigInteger, nullable=False),
        Column("cursor", BigInteger, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("clock_state", SmallInteger, nullable=False),
    )


# A metric belongs to one device of one tenant: two integers find a device's hour.
reading: Final = Table(
    "reading",
    Model.metadata,
    Column("metric", BigInteger, nullable=False),
    *_placed(),
    Column("quality", SmallInteger, nullable=False),
    Column("value", Double),
    Index("ix_reading_metric_time_ms", "metric", "time_ms"),
    postgresql_partition_by="RANGE (time_ms)",
)

inference: Final = Table(
    "inference",
    Model.metadata,
    Column("tenant", String(63), nullable=False),
    Column("device", String(63), nullable=False),
    *_placed(),
    Column("position", SmallInteger, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("label", String(200), nullable=False),
    Column("score", Double, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("latency_us", BigInteger, nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("request", String(32), nullable=False, server_default=text("''")),
    Column("supersedes", Boolean, nullable=False, server_default=false()),
    Column("shadow", Boolean, nullable=False, server_default=false()),
    Index("ix_inference_tenant_device_time_ms", "tenant", "device", "time_ms"),
    postgresql_partition_by="RANGE (time_ms)",
)
