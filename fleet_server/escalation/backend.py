"""What runs a central model, behind one small interface; tensors are plain bytes.

No numpy here: the server needs none unless it runs the model itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from fleet_protocol.central import MASK, PROBABILITIES, READINGS, CentralManifest
from fleet_protocol.texts import _
from fleet_server.errors import BackendError

FLOAT32_BYTES: Final = 4


class Tensor(NamedTuple):
    """Float32 numbers, little-endian, in row-major order."""

    shape: tuple[int, ...]
    values: bytes


Shapes = Mapping[str, tuple[int, ...]]
"""Tensors by name; -1 stands for any size."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a model takes and gives; float32 all of it."""

    inputs: Shapes
    outputs: Shapes


class InferenceBackend(Protocol):
    """Something that runs models. May be used by several threads at once."""

    @property
    def name(self) -> str:
        """How it is named in what it answered."""

    def metadata(self, model: str) -> Metadata:
        """What ``model`` takes and gives.

        Raises:
            BackendDown: it cannot be reached, or has no such model.
            BackendError: the model is not of float32 tensors.
        """

    def infer(self, model: str, tensors: Mapping[str, Tensor], deadline_s: float) -> dict[str, Tensor]:
        """The outputs of ``model`` for ``tensors``.

        ``deadline_s`` is a moment of :func:`time.monotonic`; soon after it this returns or raises.

        Raises:
            BackendLate: no answer by then.
            BackendDown: it cannot be reached, or has no such model.
            BackendError: it does not take these tensors, or gives what is none.
        """

    def close(self) -> None:
        """Give connections and models back."""


def check(tensor: Tensor) -> Tensor:
    """``tensor``, whose bytes are as many as its shape says.

    Raises:
        BackendError: they are not.
    """
    if FLOAT32_BYTES * math.prod(tensor.shape) != len(tensor.values):
        raise BackendError(
            _("a tensor of shape {shape} has {size} bytes").format(
                shape=list(tensor.shape), size=len(tensor.values)
            )
        )
    return tensor


def require_fitting(metadata: Metadata, manifest: CentralManifest) -> None:
    """See to it that the model is as its ``central.json`` says.

    Raises:
        BackendError: other tensors, or other shapes.
    """
    wanted = {READINGS: manifest.shape, MASK: manifest.shape}
    given = {name: metadata.inputs.get(name) for name in wanted}
    labels = (1, len(manifest.labels))
    output = metadata.outputs.get(PROBABILITIES)
    fits = set(metadata.inputs) == set(wanted) and all(map(_agree, given.values(), wanted.values()))
    if not fits or not _agree(output, labels):
        raise BackendError(
            _(
                "{model} takes {inputs} and gives {outputs}; by its central.json it takes {wanted} and "
                "gives {probabilities}: deliver both from one training"
            ).format(
                model=manifest.name,
                inputs=dict(metadata.inputs),
                outputs=dict(metadata.outputs),
                wanted=wanted,
                probabilities={PROBABILITIES: labels},
            )
        )


def _agree(given: tuple[int, ...] | None, wanted: tuple[int, ...]) -> bool:
    if given is None or len(given) != len(wanted):
        return False
    return all(one in {-1, other} for one, other in zip(given, wanted, strict=True))
