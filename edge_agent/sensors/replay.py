"""Replays a recording: CSV with the standard library, Parquet where pyarrow is installed.

Rows are read as they are needed; a recording may be larger than the memory.
"""

import asyncio
import csv
import datetime as dt
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from edge_agent.clock import Clock
from edge_agent.config import Replay
from edge_agent.errors import SensorEnded, SensorRefused
from edge_agent.sensors.base import MetricSpec, Sample
from fleet_protocol.messages import MetricKind, Quality
from fleet_protocol.texts import _

_ROWS_AT_ONCE: Final = 512
_LONGEST_WAIT_S: Final = 86_400.0
"""A hole in a recording is not waited for longer than a day."""

_Row = Mapping[str, Any]


class ReplaySensor:
    """A recording as a sensor; every poll gives the next row, as if measured now."""

    kind = "replay"

    def __init__(self, config: Replay, clock: Clock, time_factor: float) -> None:
        self.name: Final = config.name
        self.metrics: Final = tuple(
            MetricSpec(metric, config.units.get(metric, ""), MetricKind.GAUGE) for metric in config.columns
        )
        # As recorded, a poll itself waits until its row is due.
        self.interval_s: Final = config.interval_s or 0.0
        self._config = config
        self._clock = clock
        self._time_factor = time_factor
        self._rows: Iterator[_Row] | None = None
        self._start: float | None = None

    async def poll(self) -> list[Sample]:
        """The next row; an empty cell is a bad sample.

        Raises:
            SensorEnded: there is none, and it is not repeated.
            SensorRefused: the file cannot be read, or a cell is no number.
        """
        row = self._next()
        if self._config.time_column is not None:
            await self._until_due(_seconds(row[self._config.time_column]))
        now = self._clock.mono_ms()
        cells = [row[column] for column in self._config.columns.values()]
        samples = [_sample(metric, cell, now) for metric, cell in zip(self.metrics, cells, strict=True)]
        wrong = [str(cell)[:40] for cell in cells if _number(cell) is None and not _is_empty(cell)]
        if wrong:
            raise SensorRefused(
                _("{file}: {cell!r} is no number; correct the recording").format(
                    file=self._config.path.name, cell=wrong[0]
                ),
                samples,
            )
        return samples

    async def close(self) -> None:
        """Let go of the file."""
        self._rows = None

    def _next(self) -> _Row:
        fresh = self._rows is None
        row = self._advance()
        if row is None and self._config.repeat and not fresh:
            self._rows = None
            row = self._advance()
        if row is None:
            raise SensorEnded(_("{file} is over").format(file=self._config.path.name))
        return row

    def _advance(self) -> _Row | None:
        try:
            if self._rows is None:
                self._rows, self._start = _rows(self._config), None
            return next(self._rows, None)
        except (OSError, ValueError, csv.Error) as error:
            self._rows = None
            raise SensorRefused(f"{self._config.path}: {error}") from error

    async def _until_due(self, recorded_s: float) -> None:
        """Wait as long as the recording did, ``time_factor`` times faster."""
        now = asyncio.get_running_loop().time()
        if self._start is None:
            self._start = now - recorded_s / self._time_factor
        wait_s = self._start + recorded_s / self._time_factor - now
        if not 0.0 <= wait_s <= _LONGEST_WAIT_S:
            # The recording jumps, or this device slept: go on from here.
            self._start -= wait_s
            return
        await asyncio.sleep(wait_s)


def _rows(config: Replay) -> Iterator[_Row]:
    rows = _parquet_rows(config) if config.path.suffix == ".parquet" else _csv_rows(config)
    first = next(rows, None)
    if first is None:
        return iter(())
    wanted = [*config.columns.values(), *([config.time_column] if config.time_column else [])]
    missing = [column for column in wanted if column not in first]
    if missing:
        raise ValueError(
            _("no column {missing!r}; it has {columns}").format(
                missing=missing[0], columns=", ".join(map(str, first))[:120]
            )
        )
    return chain([first], rows)


def _csv_rows(config: Replay) -> Iterator[_Row]:
    with config.path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _parquet_rows(config: Replay) -> Iterator[_Row]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(
            _("replaying Parquet needs pyarrow; install it, or convert the recording to CSV")
        ) from None
    with ParquetFile(config.path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _sample(metric: MetricSpec, cell: object, now: int) -> Sample:
    value = _number(cell)
    return Sample(metric, value, Quality.BAD if value is None else Quality.GOOD, now)


def _is_empty(cell: object) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _number(cell: object) -> float | None:
    """The finite number in a cell, if there is one."""
    if not isinstance(cell, int | float | str):
        return None
    with suppress(ValueError):
        value = float(cell)
        return value if math.isfinite(value) else None
    return None


def _seconds(cell: object) -> float:
    """The time in a cell, in seconds."""
    if isinstance(cell, dt.datetime):
        return cell.replace(tzinfo=cell.tzinfo or dt.UTC).timestamp()
    value = _number(cell)
    if value is not None:
        return value
    try:
        return _seconds(dt.datetime.fromisoformat(str(cell)))
    except ValueError:
        raise SensorRefused(
            _("{cell!r} is no time; write ISO 8601 or seconds").format(cell=str(cell)[:40])
        ) from None
