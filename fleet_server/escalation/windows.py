"""The central model's inputs: the newest window of every gateway, at the time of the question.

What the others measured is read from the database and averaged step by step; what the asking
device measured comes with its question and wins, because its last readings may not be stored yet.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Engine, Select, Text, and_, cast, func, or_, select

from fleet_protocol.central import MASK, READINGS, CentralManifest
from fleet_protocol.messages import Quality, Series
from fleet_server.database.models import Metric, reading
from fleet_server.escalation.backend import FLOAT32_BYTES, Tensor

_US_PER_MS: Final = 1000
_LARGEST: Final = 3.4028234663852886e38
"""What float32 can hold; a larger reading is no measurement."""

_ints: Final = msgspec.json.Decoder(list[int]).decode
_floats: Final = msgspec.json.Decoder(list[float]).decode


class Grid(NamedTuple):
    """Steps of ``step_us`` µs, the last of which ended at ``end_ms`` since 1970."""

    end_ms: int
    step_us: int
    steps: int

    @property
    def start_us(self) -> int:
        """Where the first step begins."""
        return self.end_ms * _US_PER_MS - self.step_us * self.steps


class Stored(NamedTuple):
    """What the database has of one metric of one gateway: the mean of each of ``steps``, in any order."""

    gateway: str
    metric: str
    steps: Sequence[int]
    means: Sequence[float]


def stored(engine: Engine, tenant: str, manifest: CentralManifest, grid: Grid) -> list[Stored]:
    """What is stored of every gateway and metric of the model, as means of the steps that have a reading.

    The database hands over one JSON array a metric: as many rows as there are steps take three times
    as long, nearly all of it in the interpreter.
    """
    with engine.connect() as connection:
        metrics = {row.id: row for row in connection.execute(_metrics(tenant, manifest))}
        rows = connection.execute(_means(engine.dialect.name, list(metrics), grid)).all()
    return [
        Stored(metrics[row.metric].device, metrics[row.metric].name, _ints(row.steps), _floats(row.means))
        for row in rows
    ]


def tensors(
    manifest: CentralManifest, found: Iterable[Stored], asker: str, series: Iterable[Series]
) -> dict[str, Tensor]:
    """The inputs: ``found`` of everybody, then the ``series`` of ``asker`` over it. Pure.

    A series may be shorter or longer than the model's window; both end at the same step.
    """
    _one, gateways, metrics, steps = manifest.shape
    readings = array("f", bytes(FLOAT32_BYTES * gateways * metrics * steps))
    mask = array("f", readings)
    gateway_places = {name: place for place, name in enumerate(manifest.gateways)}
    metric_places = {metric.name: place for place, metric in enumerate(manifest.metrics)}

    def start_of(gateway: str, metric: str) -> int:
        return (gateway_places[gateway] * metrics + metric_places[metric]) * steps

    for one in found:
        start = start_of(one.gateway, one.metric)
        for step, mean in zip(one.steps, one.means, strict=True):
            readings[start + step] = mean
            mask[start + step] = 1.0
    for told in series:
        if told.metric in metric_places:
            values = array("f", told.values)[-steps:]
            end = start_of(asker, told.metric) + steps
            readings[end - len(values) : end] = values
            mask[end - len(values) : end] = array("f", [1.0]) * len(values)
    return {
        READINGS: Tensor(manifest.shape, readings.tobytes()),
        MASK: Tensor(manifest.shape, mask.tobytes()),
    }


def _means(dialect: str, metrics: list[int], grid: Grid) -> Select[Any]:
    step = (reading.c.time_ms * _US_PER_MS - grid.start_us) // grid.step_us
    means = (
        select(reading.c.metric, step.label("step"), func.avg(reading.c.value).label("mean"))
        .where(
            reading.c.metric.in_(metrics),
            reading.c.time_ms >= -(-grid.start_us // _US_PER_MS),
            reading.c.time_ms < grid.end_ms,
            reading.c.quality == Quality.GOOD.value,
            func.abs(reading.c.value) <= _LARGEST,
        )
        .group_by(reading.c.metric, step)
        .subquery()
    )
    as_array = func.json_group_array if dialect == "sqlite" else func.json_agg
    steps, numbers = (cast(as_array(means.c[name]), Text) for name in ("step", "mean"))
    return select(means.c.metric, steps.label("steps"), numbers.label("means")).group_by(means.c.metric)


def _metrics(tenant: str, manifest: CentralManifest) -> Select[Any]:
    """Number, device and name of each metric of the model, in the unit that the model knows."""
    table = Metric.__table__  # type: ignore[attr-defined]
    known = (and_(table.c.name == metric.name, table.c.unit == metric.unit) for metric in manifest.metrics)
    return select(table.c.id, table.c.device, table.c.name).where(
        table.c.tenant == tenant, table.c.device.in_(manifest.gateways), or_(*known)
    )
