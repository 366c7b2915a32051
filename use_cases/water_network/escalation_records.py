"""Decisions of edge and central models with their truth, as CSV: what calibration and report read.

``python -m use_cases.water_network.escalation_records`` simulates the scenarios of
:mod:`use_cases.water_network.decisions` afresh and writes for each edge model one file for
``fleet calibrate`` and one for the report, on which nothing is chosen. A few minutes on two cores.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.central import read_verdict
from fleet_protocol.manifest import Runtime
from use_cases.water_network import models_folder
from use_cases.water_network.central_model import central_folder, load_manifest, open_central, window_of
from use_cases.water_network.decisions import Purpose, Question, decision_cases, open_zone, questions
from use_cases.water_network.runtimes import Model, open_model
from use_cases.water_network.scenarios import Case, frames
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.windows import LEAK_FEATURES, inputs

Floats = NDArray[np.float32]

EDGE_MODELS: Final = ("pressure_leak", "pressure_leak_2")
"""Folders of the releases, oldest first."""
_LATE_STEPS: Final = 4
"""Readings, an hour of them, that the center may still lack of a gateway that did not ask."""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision. ``correct`` is about the asked gateway's own district, as the device's alarm is."""

    scenario: str
    day: int
    confidence: float
    """Of the edge model in its label, as it says it."""
    correct: int
    label: str
    gateway: str
    zone: str
    """District with an open leak, or ``none``."""
    size_ls: float
    """Of the open leak at 40 m; 0 without one."""
    central: str
    """What the central model says: a zone or ``none``."""

    @property
    def is_central_right(self) -> bool:
        """Whether what the central model says is right about the asked gateway's own district."""
        return (self.central == self.gateway) == (self.zone == self.gateway)


def records_file(model: str, purpose: Purpose) -> Path:
    """Where the records of the edge model in the folder ``model`` lie."""
    return Path(__file__).parent / "escalation" / f"{model}.{purpose}.csv"


def read(file: Path) -> list[Record]:
    """The records in ``file``."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [_parsed(row) for row in csv.DictReader(lines)]


def write(file: Path, records: list[Record]) -> None:
    """Write ``records`` with a head."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, [field.name for field in fields(Record)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)


def main() -> None:
    """Simulate, ask the models, and write the files."""
    edges = {name: open_model(models_folder() / name, Runtime.LITERT) for name in EDGE_MODELS}
    for purpose in Purpose:
        made: dict[str, list[Record]] = {name: [] for name in edges}
        for name, record in _decided(purpose, edges):
            made[name].append(record)
        for name, records in made.items():
            write(records_file(name, purpose), records)
            print(f"{name}, {purpose}: {len(records)} decisions")


def _decided(purpose: Purpose, edges: Mapping[str, Model]) -> Iterator[tuple[str, Record]]:
    cases = decision_cases(purpose)
    center = _Center()
    for case, frame in zip(cases, frames(cases), strict=True):
        for question in questions(case):
            central = center.zone(case, frame, question)
            for name, edge in edges.items():
                yield name, _record(case, frame, question, edge, central)


def _record(case: Case, frame: Frame, question: Question, edge: Model, central: str) -> Record:
    rows = inputs(LEAK_FEATURES, frame.metrics(question.place), np.array([question.step]))
    logits = edge(rows)[0]
    score = float(1.0 / (1.0 + np.exp(logits[0] - logits[1])))
    zone, leak = open_zone(case, question.step), case.scenario.leak
    return Record(
        scenario=str(case.scenario.seed),
        day=question.day,
        confidence=round(max(score, 1.0 - score), 6),
        correct=int((score > 0.5) == (zone == question.place)),
        label="leak" if score > 0.5 else "normal",
        gateway=GATEWAYS[question.place].name,
        zone="none" if zone is None else GATEWAYS[zone].name,
        size_ls=0.0 if zone is None or leak is None else round(leak.size_ls, 2),
        central=central,
    )


class _Center:
    """The central model as a server asks it: with everything of the asking gateway, the others' late."""

    def __init__(self) -> None:
        self._manifest = load_manifest(central_folder())
        self._run = open_central(central_folder())

    def zone(self, case: Case, frame: Frame, question: Question) -> str:
        readings = window_of(frame, question.step, self._manifest.steps)
        rng = np.random.default_rng([case.scenario.seed, question.day])
        late = rng.integers(_LATE_STEPS + 1, size=len(GATEWAYS))
        late[question.place] = 0
        mask = (np.arange(self._manifest.steps, 0, -1) > late[:, None, None]).astype(np.float32)
        mask = np.ascontiguousarray(np.broadcast_to(mask, readings.shape))
        return read_verdict(self._manifest, self._run(readings * mask, mask).tolist()).label


def _parsed(row: dict[str, str]) -> Record:
    return Record(
        scenario=row["scenario"],
        day=int(row["day"]),
        confidence=float(row["confidence"]),
        correct=int(row["correct"]),
        label=row["label"],
        gateway=row["gateway"],
        zone=row["zone"],
        size_ls=float(row["size_ls"]),
        central=row["central"],
    )


if __name__ == "__main__":
    main()
