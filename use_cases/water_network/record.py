"""The real flow record that ``river`` ships: its hours, its gaps, our labels, its clean prefix.

The description and the origin of the record are in the docstring of ``river.datasets.WaterFlow``.
"""

import csv
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import river
from numpy.typing import NDArray

STEP_S: Final = 3600
HOLD_STEPS: Final = 4
"""Missing hours that the last value stands for; the agent's windows do the same."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Hours that we call anomalous, first and last included, in seconds since 1970."""

    name: str
    kind: str
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class Run:
    """Hours without a long gap: when the first one is, and the flow in each."""

    start_s: int
    flow: NDArray[np.float32]

    def times(self) -> NDArray[np.int64]:
        """Seconds since 1970 of each hour."""
        return self.start_s + STEP_S * np.arange(len(self.flow))


def segments() -> tuple[Segment, ...]:
    """Our labels, from ``labels.toml``."""
    document = tomllib.loads((Path(__file__).parent / "labels.toml").read_text(encoding="utf-8"))
    return tuple(
        Segment(each["name"], each["kind"], int(each["start"].timestamp()), int(each["end"].timestamp()))
        for each in document["segments"]
    )


def runs() -> tuple[Run, ...]:
    """The record in pieces: short gaps hold the last value, a longer one starts a new piece."""
    path = Path(river.__file__).parent / "datasets" / "water-flow.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [(int(datetime.fromisoformat(row["Time"]).timestamp()), row) for row in csv.DictReader(lines)]
    pieces: list[tuple[int, list[float]]] = []
    previous = 0
    for time_s, row in rows:
        missing = (time_s - previous) // STEP_S - 1
        if not pieces or missing > HOLD_STEPS:
            pieces.append((time_s, []))
        else:
            pieces[-1][1].extend([pieces[-1][1][-1]] * missing)
        pieces[-1][1].append(float(row["Water flow [l/s]"]))
        previous = time_s
    return tuple(Run(start_s, np.array(values, dtype=np.float32)) for start_s, values in pieces)


def clean_prefix() -> NDArray[np.float32]:
    """Flow from the record's beginning to the hour before its first anomalous segment."""
    first = runs()[0]
    return first.flow[: (segments()[0].start_s - first.start_s) // STEP_S]
