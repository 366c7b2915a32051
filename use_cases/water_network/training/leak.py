"""The leak model: a small dense network over a day of pressure and flow against the week before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fleet_protocol.manifest import Output, OutputKind
from use_cases.water_network import models_folder
from use_cases.water_network.alarms import tune_threshold
from use_cases.water_network.detectors import MODEL_ALARM, STEPS_A_WEEK, TARGET_PER_WEEK
from use_cases.water_network.network import STEPS_A_DAY, Leak
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
_LEAK_STRIDE: Final = 5
_QUIET_STRIDE: Final = 7
_ELSEWHERE_STRIDE: Final = 35
"""None of the strides shares a factor with the 96 steps of a day. With one that does, windows without a leak
end at some quarters of an hour only, and the network learns those instead of leaks."""
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
    """Without a leak in the gateway's own district."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What distinguishes a release of the model."""

    folder: str
    version: str
    release: int
    widths: tuple[int, int]
    epochs: int
    knows_elsewhere: bool
    """Whether leaks in other districts are among what is normal here."""
    false_per_week: float | None
    """Alarms a gateway-week without a leak, where score 0.5 is placed; none leaves it where it was fitted.

    Where it is moved, sure answers of one label are less often right than unsure ones of the other,
    and no threshold on confidence parts right from wrong.
    """


FIRST: Final = Plan(
    "pressure_leak", "1.0.0", 1, (64, 32), 8, knows_elsewhere=False, false_per_week=TARGET_PER_WEEK
)
SECOND: Final = Plan("pressure_leak_2", "1.1.0", 2, (96, 48), 12, knows_elsewhere=True, false_per_week=None)


def make(plan: Plan) -> None:
    """Simulate, fit, quantize and write the model folder."""
    examples = _examples(plan)
    layers = _fit(examples, plan)
    if plan.false_per_week is not None:
        _shift(layers, plan.false_per_week)
    module = LeakNetwork(layers)
    folder = models_folder() / plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    calibration = _mixed(rng, examples, _CALIBRATION)
    to_litert(module, calibration, float_file(plan.folder), folder / f"{NAME}.tflite")
    to_openvino(module, calibration, folder / f"{NAME}.xml")
    write_manifest(folder, _card(plan), _mixed(rng, examples, _GOLDEN))


def _card(plan: Plan) -> Card:
    return Card(
        name=NAME,
        version=plan.version,
        release=plan.release,
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


def _layers(widths: tuple[int, int]) -> nn.Sequential:
    given, (first, second) = sum(feature.length for feature in LEAK_FEATURES), widths
    return nn.Sequential(
        nn.Linear(given, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 2)
    )


def _loss(numbers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and a price on numbers that the bound flattens: they would only widen int8's range."""
    beyond = torch.relu(numbers.abs() - 1.0).square().mean()
    wrong = nn.functional.cross_entropy(_bounded(numbers), labels, label_smoothing=0.05)
    return wrong + _PRICE_BEYOND * beyond


def _fit(examples: Examples, plan: Plan) -> nn.Sequential:
    rows = np.concatenate([examples.leak, examples.quiet])
    labels = np.repeat(np.array([1, 0]), [len(examples.leak), len(examples.quiet)])
    recipe = Recipe(epochs=plan.epochs, batch=512, rate=4e-3, noise=0.2)
    return fit(partial(_layers, plan.widths), _loss, rows, labels, recipe)


def _shift(layers: nn.Sequential, false_per_week: float) -> None:
    """Move the last bias of ``layers`` so that score 0.5 gives the wanted rate of false alarms."""
    # Moved before the bound, which keeps the sign of the difference of the two numbers.
    series = _quiet_series(tuning_cases(), stride=1)
    margins = [np.diff(predict(layers, rows), axis=1)[:, 0] for rows in series]
    threshold = tune_threshold(margins, MODEL_ALARM, STEPS_A_WEEK, false_per_week)
    print(f"threshold on the margin: {threshold:.3f}")
    with torch.no_grad():
        layers[-1].bias += torch.tensor([threshold / 2, -threshold / 2])


def _examples(plan: Plan) -> Examples:
    leaks = list(leak_cases(Split.TRAINING))
    leak: list[Floats] = []
    quiet: list[Floats] = []
    for case, frame in zip(leaks, frames(leaks), strict=True):
        leak.append(_leak_rows(case, frame))
        if plan.knows_elsewhere:
            quiet += _elsewhere_rows(case, frame)
    kept = set(tuning_cases())
    fitting = [case for case in quiet_cases(Split.TRAINING) if case not in kept]
    quiet += _quiet_series(fitting, stride=_QUIET_STRIDE)
    return Examples(np.concatenate(leak), np.concatenate(quiet))


def _leak_rows(case: Case, frame: Frame) -> Floats:
    guard, leak = case.guarded()
    return _rows(frame, guard, _with_leak(leak, _LEAK_STRIDE))


def _elsewhere_rows(case: Case, frame: Frame) -> Iterator[Floats]:
    guard, leak = case.guarded()
    for place in range(len(GATEWAYS)):
        if place != guard:
            yield _rows(frame, place, _with_leak(leak, _ELSEWHERE_STRIDE))


def _with_leak(leak: Leak, stride: int) -> NDArray[np.int64]:
    return np.arange(leak.start_step + _FIRST_STEP, leak.start_step + SEARCH_DAYS * STEPS_A_DAY, stride)


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
