"""The one interface to inference runtimes, and the tensors that they share.

A backend runs one model with fixed shapes, batch 1, on one thread, synchronously: for the models
of this trade a second thread or a queue costs more than it gives.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.manifest import ElementType, Tensor
from fleet_protocol.texts import _

Array = NDArray[np.generic]


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
