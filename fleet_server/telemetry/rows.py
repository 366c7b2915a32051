"""A batch's rows, as plain tuples in the order of the columns named here. Pure, and the hot path.

Enumerations are turned into exact integers with ``+``: the database drivers adapt a subclass of
``int`` an order of magnitude slower.
"""

from typing import Any, Final, NamedTuple

import msgspec

from fleet_protocol.messages import Events, Gap, Telemetry
from fleet_server.telemetry.placing import Placed
from fleet_server.telemetry.sequence import Range

Row = tuple[Any, ...]

BATCH: Final = ("tenant", "cursor", "seq", "received_ms", "stored_ms")
READING: Final = ("metric", "time_ms", "cursor", "seq", "clock_state", "quality", "value")
INFERENCE: Final = (
    "tenant", "device", "time_ms", "cursor", "seq", "clock_state", "position", "model", "version",
    "label", "score", "confidence", "latency_us", "uncertain", "request", "supersedes", "shadow",
)  # fmt: skip
EVENT: Final = (
    "tenant", "device", "time_ms", "cursor", "seq", "clock_state", "name", "severity", "text", "source",
    "figures",
)  # fmt: skip
GAP: Final = (
    "tenant", "device", "cursor", "first", "last", "batches", "records", "reason",
    "oldest_wall_ms", "newest_wall_ms", "received_ms",
)  # fmt: skip


class Origin(NamedTuple):
    """Whose batch it is, its flow and number, and where it stands in time."""

    tenant: str
    device: str
    cursor: int
    seq: int
    placed: Placed


def reading_rows(origin: Origin, batch: Telemetry, metrics: dict[int, int]) -> list[Row]:
    """One row a reading; ``metrics`` maps the device's numbers to the server's.

    Raises:
        KeyError: a reading of a number that ``metrics`` does not know.
    """
    _tenant, _device, cursor, seq, placed = origin
    start, placement, low, high, _received_ms = placed
    state = +placement
    rows: list[Row] = [
        (metrics[r.metric], start + r.offset_ms, cursor, seq, state, +r.quality, r.value)
        for r in batch.readings
        if low <= r.offset_ms <= high
    ]
    if len(rows) < len(batch.readings):
        return [
            (metrics[r.metric], time_ms, cursor, seq, state, +r.quality, r.value)
            for r in batch.readings
            for time_ms, state in [placed.time_of(r.offset_ms)]
        ]
    return rows


def inference_rows(origin: Origin, batch: Telemetry) -> list[Row]:
    """One row an inference, numbered by its place in the batch."""
    tenant, device, cursor, seq, placed = origin
    rows: list[Row] = []
    for position, i in enumerate(batch.inferences):
        time_ms, state = placed.time_of(i.offset_ms)
        rows.append(
            (
                tenant, device, time_ms, cursor, seq, state, position, i.model, i.version, i.label,
                i.score, i.confidence, i.latency_us, i.uncertain, i.request, i.supersedes, i.shadow,
            )
        )  # fmt: skip
    return rows


def event_rows(origin: Origin, batch: Events) -> list[Row]:
    """One row an event."""
    tenant, device, cursor, seq, placed = origin
    rows: list[Row] = []
    for e in batch.events:
        time_ms, state = placed.time_of(e.offset_ms)
        figures = msgspec.json.encode(e.values).decode()
        rows.append(
            (tenant, device, time_ms, cursor, seq, state, e.name, +e.severity, e.text, e.source, figures)
        )
    return rows


def gap_row(tenant: str, device: str, cursor: int, gap: Gap, lost: list[Range], received_ms: int) -> Row:
    """The row of what a gap really lost: ``lost`` leaves out what had been committed before."""
    batches = sum(last - first + 1 for first, last in lost)
    return (
        tenant, device, cursor, lost[0][0], lost[-1][1], batches, gap.records, gap.reason,
        gap.oldest_wall_ms, gap.newest_wall_ms, received_ms,
    )  # fmt: skip
