"""The flow model: an autoencoder of one day, fitted on the first days of the real record.

Before its first anomaly the record has less than four days. What a normal day may look like beyond
them is stated here, not learned: other levels, larger and smaller swings, slow waves on top, as long
as it is smooth. No value after the clean prefix is used, neither to fit nor to place the threshold.
"""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import nn

from fleet_protocol.manifest import Feature, FeatureKind, Output, OutputKind
from use_cases.water_network import models_folder, record
from use_cases.water_network.training.fit import Recipe, fit, predict
from use_cases.water_network.training.package import Card, write_manifest
from use_cases.water_network.training.quantize import to_litert, to_openvino
from use_cases.water_network.training.reference import float_file

Floats = NDArray[np.float32]

NAME: Final = "flow_day"
_HOURS: Final = 24
_LIMIT: Final = 16.0
"""Spreads; where int8 ends."""
_LEVEL: Final = 5.0
"""Spreads that a normal day may lie above or below those of the prefix (2.4 L/s)."""
_SWING: Final = (0.5, 2.0)
_WAVES: Final = 3
"""Waves of 24, 12 and 8 hours that other weekdays and seasons may add to a day, each of about one spread."""
_VARIED: Final = 20_000
_MARGIN: Final = 1.5
"""The threshold over the largest error among varied normal days: room for what they do not show."""
_GOLDEN: Final = 128


def _build() -> nn.Module:
    """An autoencoder with a bounded waist: it cannot follow a day that leaves the known range."""
    return nn.Sequential(
        nn.Linear(_HOURS, 32), nn.ReLU(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 32), nn.ReLU(),
        nn.Linear(32, _HOURS),
    )  # fmt: skip


def make() -> None:
    """Fit on the prefix, quantize and write the model folder."""
    prefix = record.clean_prefix()
    center, scale = round(float(prefix.mean()), 2), round(float(prefix.std()), 2)
    rng = np.random.default_rng(5)
    days = _varied(rng, (prefix - center) / scale)
    recipe = Recipe(epochs=40, batch=256, rate=5e-3, noise=0.0)
    module = fit(_build, nn.functional.mse_loss, days, days, recipe)
    errors = np.square(predict(module, days) - days).mean(axis=1)
    threshold = round(_MARGIN * float(errors.max()), 3)
    print(f"{len(prefix)} hours; error median {np.median(errors):.3f}, largest {errors.max():.3f}")
    folder = models_folder() / NAME
    folder.mkdir(parents=True, exist_ok=True)
    calibration = np.concatenate([days[:1000], _spiked(rng, days[1000:1500])])
    to_litert(module, calibration, float_file(NAME), folder / f"{NAME}.tflite")
    to_openvino(module, calibration, folder / f"{NAME}.xml")
    write_manifest(folder, _card(center, scale, threshold), _golden(rng, center, scale))


def _card(center: float, scale: float, threshold: float) -> Card:
    return Card(
        name=NAME,
        version="1.0.0",
        release=1,
        description="A day of flow in a main that is unlike a normal day; fitted on a real record.",
        step_s=float(record.STEP_S),
        features=(
            Feature(metric="flow", kind=FeatureKind.STANDARD, length=_HOURS, center=center, scale=scale),
        ),
        output=Output(
            kind=OutputKind.RECONSTRUCTION,
            labels=("normal", "unusual"),
            alarm_label="unusual",
            threshold=threshold,
        ),
        agreement=0.98,
    )


def _varied(rng: np.random.Generator, prefix: Floats) -> Floats:
    """Days of the prefix at other levels, with other swings and slow waves, each hour with some noise."""
    days = sliding_window_view(prefix, _HOURS)
    picked = days[rng.integers(len(days), size=_VARIED)]
    swing = rng.uniform(*_SWING, size=(_VARIED, 1))
    level = rng.uniform(-_LEVEL, _LEVEL, size=(_VARIED, 1))
    angles = 2 * np.pi * np.outer(np.arange(1, _WAVES + 1), np.arange(_HOURS)) / _HOURS
    waves = sum(rng.standard_normal((_VARIED, _WAVES)) @ turn(angles) for turn in (np.sin, np.cos))
    noise = 0.3 * rng.standard_normal(picked.shape)
    return np.asarray(picked * swing + level + waves + noise, dtype=np.float32)


def _spiked(rng: np.random.Generator, days: Floats) -> Floats:
    """``days`` with some hours at the limit, so that the calibration sees it."""
    far = rng.choice(np.array([-_LIMIT, _LIMIT], dtype=np.float32), size=days.shape)
    return np.where(rng.random(days.shape) < 0.1, far, days)


def _golden(rng: np.random.Generator, center: float, scale: float) -> Floats:
    """Real days of the record, without those beyond int8's range, where only saturation would be compared."""
    pieces = [sliding_window_view(run.flow, _HOURS) for run in record.runs() if len(run.flow) >= _HOURS]
    days = np.asarray((np.concatenate(pieces) - center) / scale, dtype=np.float32)
    days = days[np.abs(days).max(axis=1) <= _LIMIT]
    return np.asarray(days[rng.choice(len(days), _GOLDEN, replace=False)])
