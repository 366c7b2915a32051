"""A model folder on LiteRT and on OpenVINO, for training, report and tests.

An agent does this in its own inference package, isolated and for speed; here whole arrays go
through, and the raw output tensor is what is wanted. Both runtimes compute as the manifest says:
batch 1, one thread, OpenVINO in float32 where it does not compute in int8.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from fleet_protocol.manifest import ElementType, Manifest, Runtime, Tensor, parse
from use_cases.water_network.training.reference import float_file

Floats = NDArray[np.float32]
Model = Callable[[Floats], Floats]


def load_manifest(folder: Path) -> Manifest:
    """The manifest of the model in ``folder``."""
    return parse((folder / "manifest.json").read_bytes())


def open_model(folder: Path, runtime: Runtime) -> Model:
    """A function from inputs to outputs, real numbers with one row a window, on ``runtime``."""
    variant = load_manifest(folder).variant(runtime)
    if variant is None:
        raise ValueError(f"{folder}: no file for {runtime}")
    if runtime is Runtime.OPENVINO:
        return openvino_model(folder / variant.file)
    return litert_model(folder / variant.file, variant.input, variant.output)


def float_model(name: str) -> Model:
    """The model ``name`` as it was before quantization, for comparison."""
    return litert_model(float_file(name), *tensors(float_file(name)))


def litert_model(file: Path, given: Tensor, answer: Tensor) -> Model:
    """The ``.tflite`` in ``file``, whose edges are as ``given`` and ``answer`` say."""
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(inputs: Floats) -> Floats:
        quantized = quantize(inputs, given)
        outputs = np.empty((len(inputs), answer.elements), dtype=np.float32)
        for row, output in zip(quantized, outputs, strict=True):
            interpreter.set_tensor(source, row[None])
            interpreter.invoke()
            output[:] = (
                interpreter.get_tensor(target)[0].astype(np.float32) - answer.zero_point
            ) * answer.scale
        return outputs

    return run


def tensors(file: Path) -> tuple[Tensor, Tensor]:
    """Input and output of the ``.tflite`` in ``file``."""
    interpreter = Interpreter(str(file))
    edges = []
    for details in (interpreter.get_input_details()[0], interpreter.get_output_details()[0]):
        scale, zero_point = details["quantization"]
        shape = tuple(int(size) for size in details["shape"])
        kind = ElementType(np.dtype(details["dtype"]).name)
        edges.append(Tensor(shape, kind, float(scale) or 1.0, int(zero_point)))
    return edges[0], edges[1]


def openvino_model(file: Path) -> Model:
    """The OpenVINO IR in ``file``, float at both edges."""
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    model.reshape([1, *list(model.input(0).partial_shape)[1:]])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(inputs: Floats) -> Floats:
        return np.stack([request.infer([row[None]])[0][0].copy() for row in inputs])

    return run


def quantize(values: Floats, tensor: Tensor) -> NDArray[np.generic]:
    """``values`` in the number format of ``tensor``, saturating."""
    if tensor.dtype is ElementType.FLOAT32:
        return values
    limits = np.iinfo(tensor.dtype.value)
    steps = np.round(values / np.float32(tensor.scale)) + tensor.zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), dtype=tensor.dtype.value)
