"""Model folders that tests open: real int8 models, whole or broken on purpose."""

import hashlib
import importlib.util
import io
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pymicro_wakeword
from ai_edge_litert import schema_py_generated as schema

from benchmarks.autoencoder import write_bundle
from edge_agent.inference.session import PACKAGES, Session
from fleet_protocol import manifest as mf

Numbers = array  # of float32; subscriptable only from Python 3.12 on
INSTALLED = [each for each in mf.Runtime if importlib.util.find_spec(PACKAGES[each])]
WAKE_WORDS = sorted((Path(pymicro_wakeword.__file__).parent / "models").glob("*.tflite"))
ELEMENTS = 64


def autoencoder(folder: Path) -> Path:
    """An int8 autoencoder of 64 numbers, and its folder."""
    write_bundle(folder, ELEMENTS)
    return folder


def golden_inputs(folder: Path) -> list[Numbers]:
    """The golden inputs of a model whose features change nothing, as windows."""
    with np.load(folder / "golden.npz") as arrays:
        return [array("f", row.ravel().tolist()) for row in arrays["inputs"]]


def ask(session: Session, numbers: Numbers) -> tuple[str, float]:
    """Label and score for one window."""
    answer = session.infer([memoryview(numbers)])
    return answer.label, answer.score


def rewrite(folder: Path, change: Callable[[mf.Manifest], mf.Manifest]) -> None:
    """Replace the manifest in ``folder`` by a changed one."""
    path = folder / "manifest.json"
    path.write_bytes(mf.encode(change(mf.parse(path.read_bytes()))))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put ``content`` in place of a file, with a manifest that vouches for it."""
    (folder / name).write_bytes(content)
    entry = mf.File(name, hashlib.sha256(content).hexdigest(), len(content))
    rewrite(
        folder,
        lambda manifest: msgspec.structs.replace(
            manifest, files=tuple(entry if each.name == name else each for each in manifest.files)
        ),
    )


def without_first_layer(content: bytes) -> bytes:
    """The autoencoder's file with its encoder's weights set to 0: a model, and a wrong one."""
    changed = bytearray(content)
    schema.Model.GetRootAsModel(changed).Buffers(1).DataAsNumpy()[:] = 0
    return bytes(changed)


def without_graph(content: bytes) -> bytes:
    """A file that passes for a model until LiteRT follows the graph that is not there, and dies."""
    changed = bytearray(content)
    (root,) = struct.unpack_from("<I", changed, 0)
    (back,) = struct.unpack_from("<i", changed, root)
    fields, graph = root - back + 4, 2
    struct.pack_into("<H", changed, fields + 2 * graph, 0)
    return bytes(changed)


def wake_word(folder: Path, model: Path) -> Path:
    """One of the package's streaming models with golden answers computed by LiteRT alone."""
    from ai_edge_litert.interpreter import Interpreter

    content = model.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = given["quantization"]
    random = np.random.default_rng(1)
    # Levels that hold on and end again; noise alone leaves these models unmoved.
    levels = random.uniform(0.0, 26.0, (4, 1, 3, 40)).repeat(10, axis=1).reshape(40, 3, 40)
    inputs = np.asarray(levels + random.normal(0.0, 0.5, levels.shape), dtype=np.float32)
    outputs = []
    for row in inputs:
        quantized = np.clip(np.rint(row * np.float32(1.0 / scale) + zero_point), -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], quantized[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(taken["index"])[0] * np.float32(taken["quantization"][0]))
    golden = io.BytesIO()
    np.savez(golden, inputs=inputs, outputs=np.array(outputs, dtype=np.float32))
    contents = {"model.tflite": content, "golden.npz": golden.getvalue()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in contents.items():
        (folder / name).write_bytes(each)
    (folder / "manifest.json").write_bytes(mf.encode(_wake_word_manifest(model.stem, contents, given, taken)))
    return folder


def _wake_word_manifest(name: str, contents: dict[str, bytes], given: dict, taken: dict) -> mf.Manifest:
    def tensor(details: dict, dtype: mf.ElementType) -> mf.Tensor:
        scale, zero_point = details["quantization"]
        return mf.Tensor(tuple(details["shape"].tolist()), dtype, scale, zero_point)

    variant = mf.ModelFile(
        file="model.tflite",
        runtimes=(mf.Runtime.LITERT, mf.Runtime.TFLITE),
        input=tensor(given, mf.ElementType.INT8),
        output=tensor(taken, mf.ElementType.UINT8),
    )
    return mf.Manifest(
        format=1,
        name=name,
        version="1",
        release=1,
        licence="Apache-2.0",
        description="",
        files=tuple(
            mf.File(each, hashlib.sha256(content).hexdigest(), len(content))
            for each, content in contents.items()
        ),
        variants=(variant,),
        step_s=0.03,
        features=(mf.Feature(metric="sound", kind=mf.FeatureKind.STANDARD, length=120),),
        output=mf.Output(kind=mf.OutputKind.CLASSIFICATION, labels=("nothing", "heard"), alarm_label="heard"),
        golden=mf.Golden(file="golden.npz", tolerance=0.1, agreement=0.9),
    )
