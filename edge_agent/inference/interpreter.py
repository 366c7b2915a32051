"""What LiteRT and tflite-runtime share: the interpreter's Python interface is the same in both."""

import math
from collections.abc import Callable
from typing import Any, Final, cast

from edge_agent.inference.runtime import Array, check_tensor, empty
from fleet_protocol.manifest import ElementType, ModelFile, Tensor
from fleet_protocol.texts import _

THREADS: Final = 1
"""A second thread gains little on models this small and worsens the tail on a shared core."""


class InterpreterBackend:
    """One model in a TFLite interpreter."""

    def __init__(self, interpreter: Any, variant: ModelFile) -> None:
        """Allocate and compare with the manifest.

        Raises:
            ValueError: another number, shape or format of tensors than declared.
        """
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                _("one input and one output are needed; it has {inputs} and {outputs}").format(
                    inputs=len(inputs), outputs=len(outputs)
                )
            )
        _check("input", variant.input, inputs[0])
        _check("output", variant.output, outputs[0])
        self.input: Final = empty(variant.input)
        self.invoke: Final = self._path(interpreter, inputs[0]["index"], outputs[0]["index"])

    def _path(self, interpreter: Any, given: int, taken: int) -> Callable[[], Array]:
        """All of one call, without a look-up. Copying costs under a microsecond; views forbid invoking."""
        put, invoke, get, buffer = (
            interpreter.set_tensor,
            interpreter.invoke,
            interpreter.get_tensor,
            self.input,
        )

        def run() -> Array:
            put(given, buffer)
            invoke()
            return cast("Array", get(taken))

        return run


def _check(what: str, declared: Tensor, found: dict[str, Any]) -> None:
    check_tensor(what, declared, tuple(found["shape"].tolist()), found["dtype"])
    if declared.dtype is ElementType.FLOAT32:
        return
    scale, zero_point = found["quantization"]
    if zero_point != declared.zero_point or not math.isclose(scale, declared.scale, rel_tol=1e-5):
        raise ValueError(
            _("the manifest declares {what} scale {a} zero point {b}, the file has {c} and {d}").format(
                what=what, a=declared.scale, b=declared.zero_point, c=scale, d=zero_point
            )
        )
