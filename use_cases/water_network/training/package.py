"""Putting a model folder together: golden inputs, tensors as the files have them, the manifest."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleet_protocol import manifest
from fleet_protocol.manifest import ElementType, Feature, File, Golden, ModelFile, Output, Runtime, Tensor
from use_cases.water_network.runtimes import litert_model, openvino_model, tensors

Floats = NDArray[np.float32]

_MARGIN = 1.5
"""How much further than seen here the kernels of another processor may go."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a manifest says in words, and what the model takes and gives."""

    name: str
    version: str
    release: int
    description: str
    step_s: float
    features: tuple[Feature, ...]
    output: Output
    agreement: float


def write_manifest(folder: Path, card: Card, golden_inputs: Floats) -> None:
    """Write ``golden.npz`` and ``manifest.json`` for the model files in ``folder``."""
    variants = (_litert_variant(folder, card.name), _openvino_variant(folder, card.name))
    golden = _write_golden(folder, variants, card, golden_inputs)
    for made in folder.iterdir():
        made.chmod(0o644)
    named = [variants[0].file, variants[1].file, variants[1].weights or "", golden.file]
    whole = manifest.Manifest(
        format=1,
        name=card.name,
        version=card.version,
        release=card.release,
        licence="Apache-2.0",
        description=card.description,
        files=tuple(_entry(folder / name) for name in named),
        variants=variants,
        step_s=card.step_s,
        features=card.features,
        output=card.output,
        golden=golden,
    )
    (folder / "manifest.json").write_bytes(manifest.encode(whole))


def _litert_variant(folder: Path, name: str) -> ModelFile:
    given, answer = tensors(folder / f"{name}.tflite")
    return ModelFile(
        file=f"{name}.tflite", runtimes=(Runtime.LITERT, Runtime.TFLITE), input=given, output=answer
    )


def _openvino_variant(folder: Path, name: str) -> ModelFile:
    given, answer = (Tensor(each.shape, ElementType.FLOAT32) for each in tensors(folder / f"{name}.tflite"))
    return ModelFile(
        file=f"{name}.xml", weights=f"{name}.bin", runtimes=(Runtime.OPENVINO,), input=given, output=answer
    )


def _write_golden(folder: Path, variants: tuple[ModelFile, ...], card: Card, inputs: Floats) -> Golden:
    """Expected outputs are LiteRT's; the tolerance covers what OpenVINO makes of the same weights."""
    reference, other = variants
    expected = litert_model(folder / reference.file, reference.input, reference.output)(inputs)
    difference = float(np.abs(openvino_model(folder / other.file)(inputs) - expected).max())
    np.savez_compressed(folder / "golden.npz", inputs=inputs, outputs=expected)
    tolerance = _MARGIN * max(difference, 2 * reference.output.scale)
    print(f"{card.name}: OpenVINO and LiteRT differ by up to {difference:.4f}; tolerance {tolerance:.4f}")
    return Golden(file="golden.npz", tolerance=float(f"{tolerance:.3g}"), agreement=card.agreement)


def _entry(file: Path) -> File:
    content = file.read_bytes()
    return File(file.name, hashlib.sha256(content).hexdigest(), len(content))
