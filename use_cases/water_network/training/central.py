"""The central model: fitted on the windows of all gateways at once, written as OpenVINO IR and ONNX."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from fleet_protocol.central import (
    FILE_NAME,
    MASK,
    PROBABILITIES,
    READINGS,
    CentralManifest,
    CentralMetric,
    encode,
)
from fleet_protocol.manifest import File
from use_cases.water_network.central_model import METRICS, NONE, central_folder
from use_cases.water_network.network import STEP_S, STEPS_A_DAY
from use_cases.water_network.scenarios import (
    SEARCH_DAYS,
    Case,
    Split,
    frames,
    leak_cases,
    quiet_cases,
    short_quiet_cases,
)
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.training.zones import ZoneNetwork, features
from use_cases.water_network.windows import WINDOW

NAME: Final = "leak_zone"
_SHAPE: Final = (1, len(GATEWAYS), len(METRICS), WINDOW)
_EXAMPLE: Final = (torch.zeros(_SHAPE), torch.ones(_SHAPE))
_FIRST_STEP: Final = 2
"""A leak's first half hour says too little to learn from."""
_LEAK_STRIDE: Final = 11
_BEFORE_STRIDE: Final = 25
_QUIET_STRIDE: Final = 23
"""None shares a factor with the 96 steps of a day: every hour is seen with a leak and without."""
_EPOCHS: Final = 14
_BATCH: Final = 128
_RATE: Final = 2e-3
_NOISE: Final = 0.1
"""Spread of what is added to the readings, m and L/s: about that of the sensors."""
_LARGEST_MISSING: Final = 0.4
"""Share of gateways that may be missing altogether."""
_DRAWS: Final = 3
"""Draws of noise and holes for each window; drawing anew in every epoch takes most of the time."""
_SEED: Final = 1


def make() -> None:
    """Simulate, fit and write the model folder."""
    cases = [*leak_cases(Split.TRAINING), *quiet_cases(Split.TRAINING), *short_quiet_cases()]
    network = fit(examples(zip(cases, frames(cases), strict=True)))
    folder = central_folder()
    folder.mkdir(exist_ok=True)
    _to_openvino(network, folder / f"{NAME}.xml")
    _to_onnx(network, folder / f"{NAME}.onnx")
    for made in folder.iterdir():
        made.chmod(0o644)
    (folder / FILE_NAME).write_bytes(encode(_manifest(folder)))


def _to_openvino(network: ZoneNetwork, file: Path) -> None:
    model = openvino.convert_model(network, example_input=_EXAMPLE, input=[_SHAPE, _SHAPE])
    for port, name in zip((*model.inputs, *model.outputs), (READINGS, MASK, PROBABILITIES), strict=True):
        port.set_names({name})
    openvino.save_model(model, file, compress_to_fp16=False)


def _to_onnx(network: ZoneNetwork, file: Path) -> None:
    names = {"input_names": [READINGS, MASK], "output_names": [PROBABILITIES]}
    torch.onnx.export(network, _EXAMPLE, file, **names, dynamo=True, external_data=False)


def _manifest(folder: Path) -> CentralManifest:
    named = [folder / f"{NAME}.{ending}" for ending in ("xml", "bin", "onnx")]
    return CentralManifest(
        format=1,
        name=NAME,
        version="1.0.0",
        licence="Apache-2.0",
        description="Zone of a leak, from the last eight days of pressure and flow of all gateways.",
        file=named[0].name,
        files=tuple(_entry(file) for file in named),
        serves=("pressure_leak",),
        gateways=tuple(gateway.name for gateway in GATEWAYS),
        metrics=tuple(CentralMetric(name, unit) for name, unit in zip(METRICS, ("m", "L/s"), strict=True)),
        step_s=float(STEP_S),
        steps=WINDOW,
        labels=(*(gateway.name for gateway in GATEWAYS), NONE),
        none=NONE,
    )


def _entry(file: Path) -> File:
    content = file.read_bytes()
    return File(file.name, hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows to fit on, as places in the readings of their scenarios."""

    scenarios: list[Tensor]
    """Readings of each, (gateways, metrics, steps)."""
    places: Tensor
    """(examples, 2): scenario, step of the newest reading."""
    zones: Tensor
    """Place of the guard, or the number of gateways where no leak is open."""


def examples(pairs: Iterable[tuple[Case, Frame]]) -> Examples:
    """Windows of every case: with the leak open, before it, and of the quiet ones."""
    scenarios, places, zones = [], [], []
    for number, (case, frame) in enumerate(pairs):
        scenarios.append(torch.from_numpy(np.stack([frame.pressure.T, frame.flow.T], axis=1)))
        for step, zone in _windows(case, len(frame.pressure)):
            places.append((number, step))
            zones.append(zone)
    return Examples(scenarios, torch.tensor(places), torch.tensor(zones))


def _windows(case: Case, steps: int) -> Iterator[tuple[int, int]]:
    none, seed = len(GATEWAYS), case.scenario.seed
    if case.scenario.leak is None:
        first = WINDOW - 1 + seed % _QUIET_STRIDE
        yield from ((step, none) for step in range(first, steps, _QUIET_STRIDE))
        return
    guard, leak = case.guarded()
    first = WINDOW - 1 + seed % _BEFORE_STRIDE
    yield from ((step, none) for step in range(first, leak.start_step, _BEFORE_STRIDE))
    last = min(steps, leak.start_step + SEARCH_DAYS * STEPS_A_DAY)
    yield from ((step, guard) for step in range(leak.start_step + _FIRST_STEP, last, _LEAK_STRIDE))


def fit(given: Examples) -> ZoneNetwork:
    """A network fitted on ``given``."""
    torch.manual_seed(_SEED)
    rows = _features(given)
    network = ZoneNetwork(len(GATEWAYS), len(METRICS))
    steps = _EPOCHS * -(-len(given.zones) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for epoch in range(_EPOCHS):
        total = 0.0
        for some in torch.randperm(len(given.zones)).split(_BATCH):
            draw = torch.randint(_DRAWS, (len(some),))
            numbers = network.logits(rows[draw, some].float())
            loss = nn.functional.cross_entropy(numbers, given.zones[some], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(some)
        print(f"epoch {epoch + 1}/{_EPOCHS}: loss {total / len(given.zones):.4f}", flush=True)
    network.eval()
    return network


def _features(given: Examples) -> Tensor:
    """What the network sees of every window, (draws, windows, gateways, features), in half precision."""
    drawn = []
    for _draw in range(_DRAWS):
        parts = []
        for some in torch.arange(len(given.zones)).split(_BATCH):
            readings = _readings(given, some)
            noisy = readings + _NOISE * torch.randn_like(readings)
            parts.append(features(noisy, _holes(readings)).half())
        drawn.append(torch.cat(parts))
    return torch.stack(drawn)


def _readings(given: Examples, rows: Tensor) -> Tensor:
    return torch.stack(
        [
            given.scenarios[number][..., end + 1 - WINDOW : end + 1]
            for number, end in given.places[rows].tolist()
        ]
    )


def _holes(readings: Tensor) -> Tensor:
    """Masks as a server has them: gateways without a device, newest readings still to come, gaps."""
    batch, gateways, metrics, steps = readings.shape
    shape, one = (batch, gateways, 1, 1), (batch, 1, 1, 1)
    ages = torch.arange(steps - 1, -1, -1).reshape(1, 1, 1, steps)
    missing = torch.rand(one) * _LARGEST_MISSING * (torch.rand(one) < 0.5)
    late = torch.rand(shape) ** 3 * STEPS_A_DAY / 2 * (torch.rand(shape) < 0.5)
    start, length = torch.rand(shape) * steps, torch.rand(shape) * STEPS_A_DAY
    gap = (torch.rand(shape) < 0.1) & (ages >= start) & (ages < start + length)
    there = (torch.rand(shape) >= missing) & (ages >= late) & ~gap
    return there.expand(batch, gateways, metrics, steps).to(readings.dtype)
