"""The one interface to inference runtimes, and which of them can be imported here.

A backend runs one model with fixed shapes, batch 1, on one thread, synchronously: for the models
of this trade a second thread or a queue costs more than it gives.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelRefused, RuntimeMissing
from edge_agent.inference.bundle import Bundle
from fleet_protocol.manifest import ElementType, ModelFile, Precision, Runtime, Tensor
from fleet_protocol.texts import _

Array = NDArray[np.generic]

_MAX_REASON: Final = 300
"""Characters of a library's own words; some of them print their life story."""


class Backend(Protocol):
    """A loaded model."""

    @property
    def input(self) -> Array:
        """The input buffer, of the variant's shape and element type; the caller fills it."""

    def invoke(self) -> Array:
        """Run on ``input``; the output is valid until the next call."""


_DTYPES: Final = {
    ElementType.INT8: np.int8,
    ElementType.UINT8: np.uint8,
    ElementType.FLOAT32: np.float32,
}


def load_backend(bundle: Bundle, runtime: Runtime) -> tuple[Backend, ModelFile]:
    """``bundle``'s variant for ``runtime``, loaded and checked against the declared tensors.

    Raises:
        RuntimeMissing: the runtime cannot be imported.
        ModelRefused: no variant for it, a changed file, or bytes that it does not take.
    """
    variant = bundle.manifest.variant(runtime)
    if variant is None:
        raise ModelRefused(
            _("{model}: no variant for {runtime}").format(model=bundle.manifest.name, runtime=runtime)
        )
    content = bundle.read(variant.file)
    weights = bundle.read(variant.weights) if variant.weights else None
    try:
        return _load(runtime, content, weights, variant, bundle.manifest.precision), variant
    except ImportError as error:
        reason = str(error).strip()[-_MAX_REASON:]
        raise RuntimeMissing(
            _("{runtime} is installed but does not import ({reason}); reinstall 'argan[{runtime}]'").format(
                runtime=runtime, reason=reason
            )
        ) from error
    except (RuntimeError, ValueError, TypeError, OSError, SystemError) as error:
        reason = str(error).strip()[:_MAX_REASON]
        raise ModelRefused(
            _("{model}: {runtime} does not take {file} ({reason})").format(
                model=bundle.manifest.name, runtime=runtime, file=variant.file, reason=reason
            )
        ) from error


def _load(
    runtime: Runtime, content: bytes, weights: bytes | None, variant: ModelFile, precision: Precision
) -> Backend:
    """Each module is imported only here and only when asked for: that is the footprint decision."""
    match runtime:
        case Runtime.LITERT:
            from edge_agent.inference import litert

            return litert.load(content, variant)
        case Runtime.OPENVINO:
            from edge_agent.inference import openvino

            return openvino.load(content, weights, variant, precision)
        case Runtime.TFLITE:
            from edge_agent.inference import tflite

            return tflite.load(content, variant)


def empty(tensor: Tensor) -> Array:
    """A zeroed array of the shape and element type of ``tensor``."""
    return np.zeros(tensor.shape, dtype=_DTYPES[tensor.dtype])


def check_tensor(what: str, declared: Tensor, shape: tuple[int, ...], dtype: object) -> None:
    """Compare what the manifest declares with what the file has.

    Raises:
        ValueError: they differ.
    """
    if tuple(shape) != declared.shape or np.dtype(dtype) != _DTYPES[declared.dtype]:  # type: ignore[call-overload]
        raise ValueError(
            _("the manifest declares {what} {declared} {shape}, the file has {found} {real}").format(
                what=what,
                declared=declared.dtype,
                shape=list(declared.shape),
                found=np.dtype(dtype).name,  # type: ignore[call-overload]
                real=list(shape),
            )
        )
