"""A real int8 model of any width, made from its formula: a linear autoencoder of smooth signals.

Principal components of synthetic signals become two fully connected layers, quantized per tensor
as TensorFlow Lite's specification says, and written as a ``.tflite`` file that every runtime takes.
It serves where a model's size matters and the committed ones do not have it.
"""

from pathlib import Path
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from benchmarks import bundles
from fleet_protocol import manifest as mf

HIDDEN: Final = 32
_IDENTIFIER: Final = b"TFL3"

Matrix = NDArray[np.float32]


def write_bundle(folder: Path, elements: int = 512, *, seed: int = 0) -> mf.Manifest:
    """Make the model, its golden inputs and its manifest in ``folder``."""
    random = np.random.default_rng(seed)
    signals = _signals(random, 400, elements)
    components = np.linalg.svd(signals, full_matrices=False)[2][:HIDDEN].astype(np.float32)
    rebuilt = np.asarray(signals @ components.T @ components, dtype=np.float32)
    content, given, taken = _file(signals, components, rebuilt)
    contents = {"model.tflite": content, "golden.npz": bundles.pack(signals[:40], rebuilt[:40])}
    manifest = _manifest(contents, given, taken, float(np.ptp(rebuilt)) / 25)
    bundles.write(folder, manifest, contents)
    return manifest


def _signals(random: np.random.Generator, count: int, elements: int) -> Matrix:
    """Sums of a few sines and a little noise: what ``HIDDEN`` components can tell."""
    places = np.linspace(0.0, 2.0 * np.pi, elements)
    turns = np.arange(1, 9)
    phases = random.uniform(0.0, 2.0 * np.pi, (count, turns.size, 1))
    weights = random.normal(0.0, 1.0, (count, turns.size, 1)) / turns[:, None]
    sines = (weights * np.sin(turns[:, None] * places + phases)).sum(axis=1)
    return np.asarray(sines + random.normal(0.0, 0.02, sines.shape), dtype=np.float32)


def _manifest(
    contents: dict[str, bytes], given: mf.Tensor, taken: mf.Tensor, tolerance: float
) -> mf.Manifest:
    variant = mf.ModelFile(file="model.tflite", runtimes=tuple(mf.Runtime), input=given, output=taken)
    return mf.Manifest(
        format=1,
        name="autoencoder",
        version="1",
        release=1,
        licence="Apache-2.0",
        description="Linear autoencoder of synthetic signals; for tests and benchmarks.",
        files=bundles.entries(contents),
        variants=(variant,),
        step_s=1.0,
        features=(mf.Feature(metric="signal", kind=mf.FeatureKind.STANDARD, length=given.elements),),
        output=mf.Output(
            kind=mf.OutputKind.RECONSTRUCTION,
            labels=("normal", "strange"),
            alarm_label="strange",
            threshold=0.05,
        ),
        golden=mf.Golden(file="golden.npz", tolerance=tolerance),
    )


def _file(signals: Matrix, components: Matrix, rebuilt: Matrix) -> tuple[bytes, mf.Tensor, mf.Tensor]:
    """The ``.tflite`` file and the tensors at its edges."""
    codes = signals @ components.T
    tensors: list[tuple[Any, bytes | None]] = [
        _activation("input", signals),
        _activation("code", codes),
        _activation("output", rebuilt),
        _weights("encoder", components),
        _weights("decoder", np.ascontiguousarray(components.T)),
    ]
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT()]
    for tensor, content in tensors:
        tensor.buffer = len(model.buffers) if content else 0
        model.buffers += [_buffer(content)] if content else []
    graph = schema.SubGraphT()
    graph.name = b"main"
    graph.tensors = [tensor for tensor, _content in tensors]
    graph.inputs, graph.outputs = [0], [2]
    graph.operators = [_layer([0, 3, -1], 1), _layer([1, 4, -1], 2)]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output()), _edge(tensors[0][0]), _edge(tensors[2][0])


def _activation(name: str, numbers: Matrix) -> tuple[Any, None]:
    lowest, highest = min(0.0, float(numbers.min())), max(0.0, float(numbers.max()))
    scale = (highest - lowest) / 255
    return _tensor(name, (1, numbers.shape[1]), scale, round(-128 - lowest / scale)), None


def _weights(name: str, numbers: Matrix) -> tuple[Any, bytes]:
    scale = float(np.abs(numbers).max()) / 127
    return _tensor(name, numbers.shape, scale, 0), np.rint(numbers / scale).astype(np.int8).tobytes()


def _tensor(name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def _buffer(content: bytes) -> Any:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    return buffer


def _layer(inputs: list[int], output: int) -> Any:
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, inputs, [output]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    return layer


def _edge(tensor: Any) -> mf.Tensor:
    quantization = tensor.quantization
    return mf.Tensor(
        shape=tuple(tensor.shape),
        dtype=mf.ElementType.INT8,
        scale=float(np.float32(quantization.scale[0])),
        zero_point=quantization.zeroPoint[0],
    )
