"""The central model as a function, for report and tests; a server runs it through its own backend."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.central import FILE_NAME, MASK, READINGS, CentralManifest, parse
from use_cases.water_network.sensors import Frame

Floats = NDArray[np.float32]
CentralModel = Callable[[Floats, Floats], Floats]

METRICS: Final = ("pressure", "flow")
"""Their order in the input; also their names in :class:`~use_cases.water_network.sensors.Frame`."""
NONE: Final = "none"


def central_folder() -> Path:
    """Where the committed central model lies."""
    return Path(__file__).parent / "central"


def load_manifest(folder: Path) -> CentralManifest:
    """The manifest of the central model in ``folder``."""
    return parse((folder / FILE_NAME).read_bytes())


def open_central(folder: Path) -> CentralModel:
    """A function from readings and mask, (gateways, metrics, steps), to probabilities of the labels."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(folder / load_manifest(folder).file, "CPU", settings)
    request = model.create_infer_request()

    def run(readings: Floats, mask: Floats) -> Floats:
        answer = request.infer({READINGS: readings[None], MASK: mask[None]})
        return np.asarray(answer[0][0].copy())

    return run


def window_of(frame: Frame, end: int, steps: int) -> Floats:
    """The last ``steps`` readings of all gateways up to ``end``, as the model takes them."""
    part = slice(end + 1 - steps, end + 1)
    return np.ascontiguousarray(np.stack([getattr(frame, name)[part].T for name in METRICS], axis=1))
