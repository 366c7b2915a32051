"""A small real central model: it names the gateway whose first metric is highest, or none."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import openvino as ov
from openvino import opset13 as ops

from fleet_protocol import central
from fleet_protocol.manifest import File

NONE = "none"
NONE_LOGIT = 2.0
"""What the mean of a gateway has to exceed to be likelier than nothing at all."""


def write_central(
    folder: Path,
    gateways: Sequence[str],
    *,
    metric: str = "flow",
    unit: str = "l/s",
    steps: int = 4,
    serves: str = "autoencoder",
    step_s: float = 900.0,
) -> central.CentralManifest:
    """The model's files and its ``central.json`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(_model(len(gateways), steps), folder / "network.xml", compress_to_fp16=False)
    manifest = central.CentralManifest(
        format=1,
        name="network",
        version="7",
        licence="Apache-2.0",
        description="The gateway with the highest mean.",
        file="network.xml",
        files=tuple(_entry(folder / name) for name in ("network.xml", "network.bin")),
        serves=(serves,),
        gateways=tuple(gateways),
        metrics=(central.CentralMetric(metric, unit), central.CentralMetric("pressure", "m")),
        step_s=step_s,
        steps=steps,
        labels=(NONE, *gateways),
        none=NONE,
    )
    (folder / central.FILE_NAME).write_bytes(central.encode(manifest))
    return manifest


def expected(means: Sequence[float]) -> list[float]:
    """The probabilities for the means of the gateways' first metric."""
    weights = [math.exp(logit) for logit in (NONE_LOGIT, *means)]
    return [weight / sum(weights) for weight in weights]


def _model(gateways: int, steps: int) -> ov.Model:
    shape = [1, gateways, 2, steps]
    readings = ops.parameter(shape, ov.Type.f32, name=central.READINGS)
    mask = ops.parameter(shape, ov.Type.f32, name=central.MASK)
    sums = ops.reduce_sum(ops.multiply(readings, mask), 3, keep_dims=False)
    counts = ops.maximum(ops.reduce_sum(mask, 3, keep_dims=False), ops.constant(1.0, ov.Type.f32))
    first = ops.gather(ops.divide(sums, counts), ops.constant(0), ops.constant(2))
    none = ops.constant([[NONE_LOGIT]], ov.Type.f32)
    output = ops.softmax(ops.concat([none, first], 1), 1)
    output.output(0).set_names({central.PROBABILITIES})
    for parameter, name in ((readings, central.READINGS), (mask, central.MASK)):
        parameter.output(0).set_names({name})
    return ov.Model([output], [readings, mask], "network")


def _entry(file: Path) -> File:
    content = file.read_bytes()
    return File(file.name, hashlib.sha256(content).hexdigest(), len(content))
