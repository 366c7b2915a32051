"""OpenVINO on the CPU: pays from millisecond-sized models on; shapes, threads and precision fixed."""

import sys
import tempfile
from typing import Any, Final, cast

from edge_agent.inference.runtime import Array, check_tensor, empty
from fleet_protocol.manifest import ModelFile, Precision
from fleet_protocol.texts import _

_CONVERTER: Final = "openvino.tools.ovc"
"""The model converter that ``import openvino`` pulls in if it can; it is what imports
``openvino_telemetry``, and it costs 14 MiB and a tenth of a second."""


class OpenVinoBackend:
    """One compiled model with buffers that it shares."""

    def __init__(self, compiled: Any, variant: ModelFile) -> None:
        """Bind the buffers and compare with the manifest.

        Raises:
            ValueError: another shape or format of tensors than declared.
        """
        from openvino import Tensor

        self._request: Final = compiled.create_infer_request()
        self.input: Final = empty(variant.input)
        check_tensor("input", variant.input, *_format(compiled.inputs[0]))
        check_tensor("output", variant.output, *_format(compiled.outputs[0]))
        self._request.set_input_tensor(Tensor(self.input, shared_memory=True))
        self._output: Final = empty(variant.output)
        self._request.set_output_tensor(Tensor(self._output, shared_memory=True))

    def invoke(self) -> Array:
        """Run on ``input``; the outputs handed back by the call are not looked at, they are bound."""
        self._request.infer(share_outputs=True)
        return self._output


def load(content: bytes, weights: bytes | None, variant: ModelFile, precision: Precision) -> OpenVinoBackend:
    """The model in ``content`` (``.tflite`` or IR with ``weights``), compiled for the declared shape.

    Raises:
        ImportError: the runtime is not there.
        ValueError, RuntimeError: it does not take the bytes.
    """
    openvino = require()
    core = openvino.Core()
    model = core.read_model(content, weights) if weights is not None else _read_tflite(core, content)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            _("one input and one output are needed; it has {inputs} and {outputs}").format(
                inputs=len(model.inputs), outputs=len(model.outputs)
            )
        )
    model.reshape(list(variant.input.shape))
    return OpenVinoBackend(core.compile_model(model, "CPU", _settings(precision)), variant)


def _read_tflite(core: Any, content: bytes) -> Any:
    """It takes an IR from memory but this format only by name; what was verified is what it reads."""
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        return core.read_model(file.name)


def _settings(precision: Precision) -> dict[str, object]:
    return {
        # Left to itself it takes bf16 where the CPU has it, and one fleet answers differently per board.
        "INFERENCE_PRECISION_HINT": precision.value,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # The worker's place is chosen by who calls it; see placement.
        "ENABLE_CPU_PINNING": False,
        # By default it melts chains of int8 layers up to 256 wide into one kernel, which (2026.4.1, CPUs
        # with AVX512-VNNI) computes int8 activations wrong whose zero point is not 0. Unmelted, the
        # shipped models answer the same, take 3 to 7 us longer of 31 to 51, and compile in half the time.
        "SNIPPETS_MODE": "DISABLE",
    }


def require() -> Any:
    """OpenVINO without its converter, so that no code that could report to anyone is even loaded.

    Raises:
        ImportError: the runtime is not there.
    """
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        import openvino

        return openvino
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # the import system's way to say "absent"
    try:
        import openvino
    finally:
        del sys.modules[_CONVERTER]
    return openvino


def _format(port: Any) -> tuple[tuple[int, ...], object]:
    return tuple(port.get_partial_shape().to_shape()), cast("object", port.get_element_type().to_dtype())
