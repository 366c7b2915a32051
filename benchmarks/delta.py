"""What a delta saves: bytes and time for the water network's real models, over HTTPS at a slow line's rate.

A release follows each of four kinds of work: nothing but its number (a manifest that was mended); one
weight in ten moved by one step of its eight bits (a fine-tuning); all of them moved by up to three steps
(a training from where the last one ended); and all of them new (a training from the beginning, as far as
bytes go: the same weights in another order). Golden answers move with them. Beside these stands the
network's real second model, with more units in its layers. Each is fetched twice by the agent's own
downloader at a paced rate: whole, and as what is different.
"""

import io
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edge_agent.link.https import tls_context
from edge_agent.updates.download import Downloader
from edge_agent.updates.ledger import Budget
from edge_agent.updates.meter import Counted, Wall
from edge_agent.updates.source import Https, closing
from fleet_protocol.delivery import Delivery
from fleet_signing import patches
from fleet_signing.artifacts import Artifact, of_model
from tests.support.authority import TestAuthority
from tests.support.models import replace_file, rewrite
from tests.support.update_server import UpdateServer

KIB_PER_S: Final = 32
"""The line: a good 2G, or a poor 3G."""

_MODELS: Final = Path("use_cases/water_network/models")
_SEED: Final = 5
_STEP: Final = 1e-3
"""By how much of themselves golden answers move."""

Weights = NDArray[np.int8]
Change = Callable[[Weights, np.random.Generator], Weights]


def measure() -> dict[str, object]:
    """Ratios of bytes and of seconds, delta to whole, for each kind of retraining."""
    cases: dict[str, Change | None] = {
        "number_alone": None,
        "fine_tuned": _fine_tuned,
        "trained_on": _trained_on,
        "trained_anew": _trained_anew,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        old = of_model(_MODELS / "pressure_leak")
        results: dict[str, object] = {
            name: _compare(place / name, old, _retrained(place / f"{name}-model", change))
            for name, change in cases.items()
        }
        results["another_architecture"] = _compare(
            place / "other", old, of_model(_MODELS / "pressure_leak_2")
        )
    return {"model": "pressure_leak", "line_kib_per_s": KIB_PER_S, **results}


def _fine_tuned(weights: Weights, random: np.random.Generator) -> Weights:
    return _moved(weights, random.choice([-1, 0, 1], weights.shape, p=[0.05, 0.9, 0.05]))


def _trained_on(weights: Weights, random: np.random.Generator) -> Weights:
    return _moved(weights, random.integers(-3, 4, weights.shape))


def _trained_anew(weights: Weights, random: np.random.Generator) -> Weights:
    moved: Weights = random.permuted(weights)
    return moved


def _moved(weights: Weights, by: NDArray[np.int64]) -> Weights:
    moved: Weights = np.clip(weights + by, -127, 127).astype(np.int8)
    return moved


def _retrained(folder: Path, change: Change | None) -> Artifact:
    """The first release as its next one, after its weights were changed."""
    shutil.copytree(_MODELS / "pressure_leak", folder)
    random = np.random.default_rng(_SEED)
    if change is not None:
        for name, places in _places(folder).items():
            content = bytearray((folder / name).read_bytes())
            for place in places:
                weights = np.frombuffer(bytes(content[place]), np.int8)
                content[place] = change(weights, random).tobytes()
            replace_file(folder, name, bytes(content))
        _move_answers(folder, random)
    rewrite(folder, lambda each: msgspec.structs.replace(each, release=each.release + 1, version="next"))
    return of_model(folder)


def _places(folder: Path) -> dict[str, list[slice]]:
    """Where the matrices of weights lie in the file of each runtime."""
    openvino = (folder / "pressure_leak.xml").read_text()
    constants = re.findall(r'element_type="i8" offset="(\d+)" shape="\d+, \d+" size="(\d+)"', openvino)
    model = folder / "pressure_leak.tflite"
    interpreter, content = Interpreter(str(model)), model.read_bytes()
    interpreter.allocate_tensors()
    matrices = [
        interpreter.get_tensor(tensor["index"]).tobytes()
        for tensor in interpreter.get_tensor_details()
        if tensor["dtype"] is np.int8 and len(tensor["shape"]) == 2 and tensor["shape"][0] > 1
    ]
    found = [slice(content.index(each), content.index(each) + len(each)) for each in matrices]
    return {
        "pressure_leak.bin": [slice(int(start), int(start) + int(size)) for start, size in constants],
        model.name: found,
    }


def _move_answers(folder: Path, random: np.random.Generator) -> None:
    with np.load(folder / "golden.npz") as arrays:
        golden = dict(arrays)
    golden["outputs"] *= 1 + _STEP * random.standard_normal(golden["outputs"].shape, np.float32)
    out = io.BytesIO()
    np.savez_compressed(out, **golden)
    replace_file(folder, "golden.npz", out.getvalue())


def _compare(folder: Path, old: Artifact, new: Artifact) -> dict[str, object]:
    """``new``, whole and as a delta to ``old``."""
    began = time.perf_counter()
    delta = patches.make(old.content, new.content)
    made_s = time.perf_counter() - began
    whole_s, whole = _fetched(folder / "whole", old, new, None)
    delta_s, fetched = _fetched(folder / "delta", old, new, delta)
    return {
        "artifact_bytes": new.target.length,
        "fetched_bytes": fetched,
        "bytes_ratio": round(fetched / whole, 4),
        "time_ratio": round(delta_s / whole_s, 4),
        "whole_s": round(whole_s, 2),
        "delta_s": round(delta_s, 2),
        "server_made_it_in_s": round(made_s, 2),
    }


def _fetched(folder: Path, old: Artifact, new: Artifact, delta: bytes | None) -> tuple[float, int]:
    """Seconds and bytes that fetching takes a device that has ``old``."""
    target = new.target
    path, name = target.path.rsplit("/", 1)
    files = {f"image/targets/{path}/{target.sha256}.{name}": new.content}
    if delta is not None:
        files[f"image/deltas/{old.target.sha256}/{target.sha256}.zst"] = delta
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    (downloads / old.target.sha256).write_bytes(old.content)
    authority = TestAuthority(folder / "authority")
    with (
        UpdateServer(authority.issue("updates"), files) as server,
        closing(Https(server.url, tls_context(authority.ca, check_dates=True))) as source,
    ):
        began = time.perf_counter()
        meter = Counted(downloads, target, (Delivery(max_kib_per_s=KIB_PER_S),), Budget(), Wall(0, "UTC"))
        Downloader(downloads, source, meter, [old.target.sha256], 32).fetch(target, lambda _come: None)
        return time.perf_counter() - began, meter.ledger.fetched
