"""The leak model: a small dense network over a day of pressure and flow against the week before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fleet_protocol.manifest import Output, OutputKind
from use_cases.water_network import models_folder
from use_cases.water_network.alarms import tune_threshold
from use_cases.water_network.detectors import MODEL_ALARM, STEPS_A_WEEK, TARGET_PER_WEEK
from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.scenarios import (
    SEARCH_DAYS,
    Case,
    Split,
    frames,
    leak_cases,
    quiet_cases,
    tuning_cases,
)
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.training.fit import Recipe, fit, predict
from use_cases.water_network.training.package import Card, write_manifest
from use_cases.water_network.training.quantize import to_litert, to_openvino
from use_cases.water_network.training.reference import float_file
from use_cases.water_network.windows import LEAK_FEATURES, LEAK_LIMIT, WINDOW, inputs

Floats = NDArray[np.float32]

NAME: Final = "pressure_leak"
_FIRST_STEP: Final = 4
"""Windows with less than an hour of leak say too little to learn from."""
_LEAK_STRIDE: Final = 3
_QUIET_STRIDE: Final = 6
_BOUND: Final = 4.0
"""Largest logit: a probability of 0.9997."""
_PRICE_BEYOND: Final = 0.05
_CALIBRATION: Final = 1000
_GOLDEN: Final = 80


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows to fit on."""

    leak: Floats
    quiet: Floats


def make() -> None:
    """Simulate, fit, quantize and write the model folder."""
    examples = _examples()
    module = _shifted(_fit(examples))
    folder = models_folder() / NAME
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    calibration = _mixed(rng, examples, _CALIBRATION)
    to_litert(module, calibration, float_file(NAME), folder / f"{NAME}.tflite")
    to_openvino(module, calibration, folder / f"{NAME}.xml")
    write_manifest(folder, _CARD, _mixed(rng, examples, _GOLDEN))


_CARD: Final = Card(
    name=NAME,
    version="1.0.0",
    release=1,
    description="Leak near a metering chamber, from a day of pressure and flow against the week before.",
    step_s=900.0,
    features=LEAK_FEATURES,
    output=Output(kind=OutputKind.CLASSIFICATION, labels=("normal", "leak"), alarm_label="leak"),
    agreement=0.98,
)


class LeakNetwork(nn.Module):  # type: ignore[misc]  # torch is untyped where this is checked
    """Layers with bounded logits, so that int8 has fine steps where labels are decided."""

    def __init__(self, layers: nn.Sequential) -> None:
        """Bound what ``layers`` answer."""
        super().__init__()
        self.layers = layers

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits of normal and leak for each row."""
        return _bounded(self.layers(rows))


def _bounded(numbers: torch.Tensor) -> torch.Tensor:
    return _BOUND * torch.tanh(numbers)


def _layers() -> nn.Sequential:
    width = sum(feature.length for feature in LEAK_FEATURES)
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def _loss(numbers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and a price on numbers that the bound flattens: they would only widen int8's range."""
    beyond = torch.relu(numbers.abs() - 1.0).square().mean()
    wrong = nn.functional.cross_entropy(_bounded(numbers), labels, label_smoothing=0.05)
    return wrong + _PRICE_BEYOND * beyond


def _fit(examples: Examples) -> nn.Sequential:
    rows = np.concatenate([examples.leak, examples.quiet])
    labels = np.repeat(np.array([1, 0]), [len(examples.leak), len(examples.quiet)])
    return fit(_layers, _loss, rows, labels, Recipe(epochs=8, batch=512, rate=4e-3, noise=0.2))


def _shifted(layers: nn.Sequential) -> LeakNetwork:
    """``layers`` bounded, their last bias moved so that score 0.5 gives the wanted rate of false alarms."""
    # Moved before the bound, which keeps the sign of the difference of the two numbers.
    series = _quiet_series(tuning_cases(), stride=1)
    margins = [np.diff(predict(layers, rows), axis=1)[:, 0] for rows in series]
    threshold = tune_threshold(margins, MODEL_ALARM, STEPS_A_WEEK, TARGET_PER_WEEK)
    print(f"threshold on the margin: {threshold:.3f}")
    with torch.no_grad():
        layers[-1].bias += torch.tensor([threshold / 2, -threshold / 2])
    return LeakNetwork(layers)


def _examples() -> Examples:
    leaks = list(leak_cases(Split.TRAINING))
    leak = np.concatenate([_leak_rows(case, frame) for case, frame in zip(leaks, frames(leaks), strict=True)])
    kept = set(tuning_cases())
    fitting = [case for case in quiet_cases(Split.TRAINING) if case not in kept]
    return Examples(leak, np.concatenate(list(_quiet_series(fitting, stride=_QUIET_STRIDE))))


def _leak_rows(case: Case, frame: Frame) -> Floats:
    guard, leak = case.guarded()
    ends = np.arange(leak.start_step + _FIRST_STEP, leak.start_step + SEARCH_DAYS * STEPS_A_DAY, _LEAK_STRIDE)
    return _rows(frame, guard, ends)


def _quiet_series(cases: Iterable[Case], stride: int) -> Iterator[Floats]:
    for frame in frames(cases):
        for place in range(len(GATEWAYS)):
            yield _rows(frame, place, np.arange(WINDOW - 1, len(frame.pressure), stride))


def _rows(frame: Frame, place: int, ends: NDArray[np.int64]) -> Floats:
    return np.clip(inputs(LEAK_FEATURES, frame.metrics(place), ends), -LEAK_LIMIT, LEAK_LIMIT)


def _mixed(rng: np.random.Generator, examples: Examples, count: int) -> Floats:
    """``count`` rows, half of them with a leak."""
    half = count // 2
    picks = [rows[rng.choice(len(rows), half, replace=False)] for rows in (examples.leak, examples.quiet)]
    return np.concatenate(picks)
