"""Models that must be refused, each with the reason: missing, changed, contradictory, wrong."""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent import errors
from edge_agent.inference import session as sessions
from edge_agent.inference.session import Isolation, open_session
from fleet_protocol import manifest as mf
from tests.support import models

EVERYWHERE = pytest.mark.parametrize("isolation", ["worker", "none"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.autoencoder(tmp_path / "autoencoder")


def refused(
    folder: Path, isolation: Isolation, words: str, runtime: mf.Runtime | None = mf.Runtime.LITERT
) -> None:
    with pytest.raises(errors.ModelRefused, match=words):
        open_session(folder, isolation=isolation, runtime=runtime)


@EVERYWHERE
def test_no_manifest_or_a_broken_one(folder: Path, isolation: Isolation) -> None:
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    for content in (b"", b"{", b"\xff" * 100, whole[:-20], b" " * (mf.MAX_MANIFEST + 1)):
        manifest.write_bytes(content)
        refused(folder, isolation, "does not parse|at most")
    manifest.unlink()
    refused(folder, isolation, "manifest.json cannot be read .*deliver the model again")


@EVERYWHERE
@pytest.mark.parametrize("name", ["model.tflite", "golden.npz"])
def test_a_file_that_is_missing_changed_or_grown(folder: Path, isolation: Isolation, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    for content in (bytes(changed), whole[:-1], whole + b"\0", b""):
        path.write_bytes(content)
        refused(folder, isolation, f"{name} is not the file that the manifest names")
    path.unlink()
    refused(folder, isolation, f"{name} cannot be read")


@EVERYWHERE
@pytest.mark.parametrize("runtime", models.INSTALLED)
def test_bytes_that_are_no_model(folder: Path, isolation: Isolation, runtime: mf.Runtime) -> None:
    whole = (folder / "model.tflite").read_bytes()
    noise = np.random.default_rng(0).bytes(5000)
    for content in (noise, whole[:100], whole[: len(whole) // 2], b"\0" * 1000, b"<net/>"):
        models.replace_file(folder, "model.tflite", content)
        refused(folder, isolation, f"{runtime} does not take model.tflite|killed the worker", runtime)


@EVERYWHERE
@pytest.mark.parametrize("runtime", models.INSTALLED)
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dtype", mf.ElementType.UINT8, "declares (input|output) uint8"),
        ("shape", (1, 8, 8), r"declares (input|output) int8 \[1, 8, 8\]|reconstruction|does not take"),
    ],
)
def test_tensors_other_than_declared(
    folder: Path, isolation: Isolation, runtime: mf.Runtime, field: str, value: object, words: str
) -> None:
    models.rewrite(folder, lambda manifest: with_tensors(manifest, **{field: value}))
    refused(folder, isolation, words, runtime)


@pytest.mark.parametrize(("field", "value"), [("scale", 0.5), ("zero_point", 3)])
def test_a_quantization_other_than_declared(folder: Path, field: str, value: object) -> None:
    models.rewrite(folder, lambda manifest: with_tensors(manifest, **{field: value}))
    refused(folder, "worker", "declares input scale")
    # OpenVINO does not tell a file's quantization; the golden inputs find it out.
    refused(folder, "worker", "golden inputs fail", mf.Runtime.OPENVINO)


def with_tensors(manifest: mf.Manifest, **fields: object) -> mf.Manifest:
    (variant,) = manifest.variants
    changed = msgspec.structs.replace(
        variant,
        input=msgspec.structs.replace(variant.input, **fields),
        output=msgspec.structs.replace(variant.output, **fields),
    )
    return msgspec.structs.replace(manifest, variants=(changed,))


@EVERYWHERE
def test_golden_inputs_that_fail_say_by_how_much(folder: Path, isolation: Isolation) -> None:
    models.rewrite(
        folder,
        lambda manifest: msgspec.structs.replace(
            manifest, golden=mf.Golden(file="golden.npz", tolerance=1e-6)
        ),
    )
    refused(folder, isolation, r"golden inputs fail on this board: worst difference 0\.\d+ of 1e-06 allowed")


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, inputs=np.array([{}], dtype=object), outputs=np.zeros((1, 64), np.float32))
    return file.getvalue()


def bomb() -> bytes:
    return npz(inputs=np.zeros((300_000, 64), np.float32), outputs=np.zeros((300_000, 64), np.float32))


def liar() -> bytes:
    """An array that says it is far larger than what follows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 64)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs.npy", header.getvalue())
        archive.writestr("outputs.npy", header.getvalue())
    return file.getvalue()


ROWS = np.zeros((2, 64), np.float32)


@EVERYWHERE
@pytest.mark.parametrize(
    "content",
    [
        lambda: b"no archive",
        lambda: npz(inputs=ROWS),
        lambda: npz(inputs=ROWS, outputs=ROWS[:1]),
        lambda: npz(inputs=ROWS[:0], outputs=ROWS[:0]),
        lambda: npz(inputs=ROWS[:, :5], outputs=ROWS),
        lambda: npz(inputs=ROWS.astype(int), outputs=ROWS),
        lambda: npz(inputs=ROWS * np.nan, outputs=ROWS),
        lambda: npz(inputs=np.float32(0), outputs=ROWS),
        pickled,
        bomb,
        liar,
    ],
    ids=["noise", "half", "uneven", "empty", "shape", "integers", "nan", "scalar", "pickle", "bomb", "liar"],
)
def test_golden_files_that_cannot_be_used(
    folder: Path, isolation: Isolation, content: Callable[[], bytes]
) -> None:
    models.replace_file(folder, "golden.npz", content())
    refused(folder, isolation, "golden file golden.npz cannot be used")


def test_no_variant_for_the_runtime_asked_for(folder: Path) -> None:
    models.rewrite(folder, lambda manifest: for_runtimes(manifest, mf.Runtime.LITERT))
    refused(folder, "worker", "no variant for openvino; it has litert", mf.Runtime.OPENVINO)


def test_a_runtime_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sessions.PACKAGES, mf.Runtime.TFLITE, "no_such_package")
    models.rewrite(folder, lambda manifest: for_runtimes(manifest, mf.Runtime.TFLITE))
    with pytest.raises(errors.RuntimeMissing, match=r"install 'argan\[tflite\]'"):
        open_session(folder)


@EVERYWHERE
def test_a_runtime_that_is_there_and_does_not_import(
    folder: Path, tmp_path: Path, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken" / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('numpy._ARRAY_API not found')")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    for gone in [name for name in sys.modules if name.startswith("tflite_runtime")]:
        monkeypatch.delitem(sys.modules, gone)
    with pytest.raises(errors.RuntimeMissing, match=r"does not import .*_ARRAY_API.*reinstall"):
        open_session(folder, isolation=isolation, runtime=mf.Runtime.TFLITE)
    # Beside another that works it is only passed over.
    session = open_session(folder, isolation=isolation)
    assert session.runtime is not mf.Runtime.TFLITE
    session.close()


def for_runtimes(manifest: mf.Manifest, *runtimes: mf.Runtime) -> mf.Manifest:
    (variant,) = manifest.variants
    return msgspec.structs.replace(manifest, variants=(msgspec.structs.replace(variant, runtimes=runtimes),))
