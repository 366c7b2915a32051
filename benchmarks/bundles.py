"""Model folders that benchmarks and tests open: files with a manifest and golden inputs beside them."""

import hashlib
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from fleet_protocol import manifest as mf

_MODELS: Final = Path(str(files("pymicro_wakeword"))) / "models"

WAKE_WORDS: Final = tuple(sorted(_MODELS.glob("*.tflite")))
"""The streaming int8 models that the package ships; [1, 3, 40] in, one probability out."""

_FRAMES: Final = (3, 40)


def entries(contents: Mapping[str, bytes]) -> tuple[mf.File, ...]:
    """The manifest's list of files for ``contents`` by name."""
    return tuple(
        mf.File(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()
    )


def write(folder: Path, manifest: mf.Manifest, contents: Mapping[str, bytes]) -> None:
    """Make the folder of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(mf.encode(manifest))


def pack(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> bytes:
    """A golden file."""
    file = io.BytesIO()
    np.savez_compressed(file, inputs=inputs, outputs=outputs)
    return file.getvalue()


def write_wake_word(folder: Path, model: Path) -> None:
    """Make the folder of one of :data:`WAKE_WORDS`, with golden answers computed by LiteRT alone."""
    content = model.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    random = np.random.default_rng(1)
    # Levels that hold on and end again; noise alone leaves these models unmoved.
    levels = random.uniform(0.0, 26.0, (4, 1, *_FRAMES)).repeat(10, axis=1).reshape(40, *_FRAMES)
    inputs = np.asarray(levels + random.normal(0.0, 0.5, levels.shape), dtype=np.float32)
    outputs = np.array([_answer(interpreter, given, taken, row) for row in inputs], dtype=np.float32)
    contents = {"model.tflite": content, "golden.npz": pack(inputs, outputs)}
    write(folder, _wake_word_manifest(model.stem, contents, given, taken), contents)


def _answer(
    interpreter: Any, given: dict[str, Any], taken: dict[str, Any], row: NDArray[np.float32]
) -> NDArray[np.float32]:
    scale, zero_point = given["quantization"]
    steps = np.rint(row / np.float32(scale) + zero_point)
    interpreter.set_tensor(given["index"], np.clip(steps, -128, 127).astype(np.int8)[None])
    interpreter.invoke()
    output: NDArray[np.float32] = interpreter.get_tensor(taken["index"])[0] * np.float32(
        taken["quantization"][0]
    )
    return output


def _wake_word_manifest(
    name: str, contents: Mapping[str, bytes], given: dict[str, Any], taken: dict[str, Any]
) -> mf.Manifest:
    variant = mf.ModelFile(
        file="model.tflite",
        # OpenVINO does not know the resource variables that these models keep their state in.
        runtimes=(mf.Runtime.LITERT, mf.Runtime.TFLITE),
        input=_tensor(given, mf.ElementType.INT8),
        output=_tensor(taken, mf.ElementType.UINT8),
    )
    return mf.Manifest(
        format=1,
        name=name,
        version="1",
        release=1,
        licence="Apache-2.0",
        description="A streaming model of the pymicro-wakeword package.",
        files=entries(contents),
        variants=(variant,),
        step_s=0.03,
        features=(mf.Feature(metric="sound", kind=mf.FeatureKind.STANDARD, length=120),),
        output=mf.Output(kind=mf.OutputKind.CLASSIFICATION, labels=("nothing", "heard"), alarm_label="heard"),
        golden=mf.Golden(file="golden.npz", tolerance=0.1, agreement=0.9),
    )


def _tensor(details: dict[str, Any], dtype: mf.ElementType) -> mf.Tensor:
    scale, zero_point = details["quantization"]
    return mf.Tensor(tuple(details["shape"].tolist()), dtype, scale, zero_point)
