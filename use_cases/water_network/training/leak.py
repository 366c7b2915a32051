"""The leak model: a small dense network over a day of pressure and flow against the week before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fleet_protocol.manifest import Output, OutputKind
from use_cases.water_network import models_folder
from use_cases.water_network.alarms import tune_threshold
from use_cases.water_network.detectors import ALARM, STEPS_A_WEEK, TARGET_PER_WEEK
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.scenarios import SEARCH_DAYS, Case, Split, frames, leak_cases, quiet_cases
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.training.fit import fit, predict
from use_cases.water_network.training.package import Card, write_manifest
from use_cases.water_network.training.quantize import to_litert, to_openvino
from use_cases.water_network.windows import LEAK_FEATURES, WINDOW, inputs

Floats = NDArray[np.float32]

NAME: Final = "pressure_leak"
_LIMIT: Final = 6.0
"""Spreads; what is further out is far out, and int8 needs an end."""
_FIRST_STEP: Final = 4
"""Windows with less than an hour of leak say too little to learn from."""
_LEAK_STRIDE: Final = 3
_QUIET_STRIDE: Final = 6
_BOUND: Final = 4.0
"""Largest logit: a probability of 0.9997."""
_CALIBRATION: Final = 1000
_GOLDEN: Final = 96


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows to fit on, and whole quiet series on which the threshold is placed."""

    leak: Floats
    quiet: Floats
    tuning: list[Floats]


def make() -> None:
    """Simulate, fit, quantize and write the model folder."""
    examples = _examples()
    module = _shifted(_fit(examples), examples.tuning)
    folder = models_folder() / NAME
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    calibration = _mixed(rng, examples, _CALIBRATION)
    float_file = Path(__file__).parent / "reference" / f"{NAME}.f32.tflite"
    float_file.parent.mkdir(exist_ok=True)
    to_litert(module, calibration, float_file, folder / f"{NAME}.tflite")
    to_openvino(module, calibration, folder / f"{NAME}.xml")
    write_manifest(folder, _CARD, _mixed(rng, examples, _GOLDEN))


_CARD: Final = Card(
    name=NAME,
    version="1.0.0",
    release=1,
    description="Leak near a metering chamber, from a day of pressure and flow against the seven days before.",
    step_s=900.0,
    features=LEAK_FEATURES,
    output=Output(kind=OutputKind.CLASSIFICATION, labels=("normal", "leak"), alarm_label="leak"),
    agreement=0.98,
)


class LeakNetwork(nn.Module):
    """Dense layers; logits are bounded, so that int8 has fine steps where labels are decided."""

    def __init__(self) -> None:
        """Layers with random weights."""
        super().__init__()
        width = sum(feature.length for feature in LEAK_FEATURES)
        self.layers = nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits of normal and leak for each row."""
        return _BOUND * torch.tanh(self.layers(rows))


def _fit(examples: Examples) -> LeakNetwork:
    rows = np.concatenate([examples.leak, examples.quiet])
    labels = np.repeat(np.array([1, 0]), [len(examples.leak), len(examples.quiet)])
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    return fit(LeakNetwork, loss, rows, labels, epochs=8, batch=512, rate=4e-3, noise=0.1, seed=1)


def _shifted(module: LeakNetwork, tuning: list[Floats]) -> LeakNetwork:
    """``module`` with its last bias moved so that score 0.5 gives the wanted rate of false alarms."""
    # Before the bound, where the difference of the two numbers may be moved; the bound keeps its sign.
    layers = module.layers
    margins = [np.diff(predict(layers, rows), axis=1)[:, 0] for rows in tuning]
    threshold = tune_threshold(margins, ALARM, STEPS_A_WEEK, TARGET_PER_WEEK)
    print(f"threshold on the margin: {threshold:.3f}")
    with torch.no_grad():
        layers[-1].bias += torch.tensor([threshold / 2, -threshold / 2])
    return module


def _examples() -> Examples:
    leaks = list(leak_cases(Split.TRAINING))
    leak = np.concatenate([_leak_rows(case, frame) for case, frame in zip(leaks, frames(leaks), strict=True)])
    quiet = list(quiet_cases(Split.TRAINING))
    series = list(_quiet_series(frames(quiet)))
    # Every third quiet scenario only places the threshold; the network never sees it.
    per_scenario = len(GATEWAYS)
    tuning = [rows for place, rows in enumerate(series) if place // per_scenario % 3 == 0]
    fitting = [rows[::_QUIET_STRIDE] for place, rows in enumerate(series) if place // per_scenario % 3 != 0]
    return Examples(leak, np.concatenate(fitting), tuning)


def _leak_rows(case: Case, frame: Frame) -> Floats:
    if case.guard is None or case.scenario.leak is None:
        raise ValueError("a case without a leak among the leaks")
    start = case.scenario.leak.start_step
    ends = np.arange(start + _FIRST_STEP, start + SEARCH_DAYS * STEPS_A_DAY, _LEAK_STRIDE)
    return _rows(frame, case.guard, ends)


def _quiet_series(series: Iterable[Frame]) -> Iterator[Floats]:
    for frame in series:
        for place in range(len(GATEWAYS)):
            yield _rows(frame, place, np.arange(WINDOW - 1, len(frame.pressure)))


def _rows(frame: Frame, place: int, ends: NDArray[np.int64]) -> Floats:
    return np.clip(inputs(LEAK_FEATURES, frame.series(place), ends), -_LIMIT, _LIMIT)


def _mixed(rng: np.random.Generator, examples: Examples, count: int) -> Floats:
    """``count`` rows, half of them with a leak."""
    half = count // 2
    picks = [rows[rng.choice(len(rows), half, replace=False)] for rows in (examples.leak, examples.quiet)]
    return np.concatenate(picks)
