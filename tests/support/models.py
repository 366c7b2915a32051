"""Model folders that tests open: real int8 models, whole or broken on purpose."""

import importlib.util
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.autoencoder import write_bundle
from benchmarks.bundles import WAKE_WORDS, entries, write_wake_word
from edge_agent.inference.session import PACKAGES, Session
from fleet_protocol import manifest as mf

__all__ = ["WAKE_WORDS"]

Numbers = array  # of float32; subscriptable only from Python 3.12 on
INSTALLED = [each for each in mf.Runtime if importlib.util.find_spec(PACKAGES[each])]
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
    (entry,) = entries({name: content})
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
    """One of the streaming models, and its folder."""
    write_wake_word(folder, model)
    return folder
