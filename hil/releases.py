"""Releases of a model to update to: good ones, and ones with a flaw. Files in, files out.

``golden``: the expected answers in the release are not what its model computes, as when the wrong
file was packed. ``worse``: it passes its golden inputs and then sees an alarm in every window, as
when a threshold was mistaken. Only a model whose output is a reconstruction can be made worse so.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

Flaw = Literal["none", "golden", "worse"]

_NEVER: Final = 1e9
_ALWAYS: Final = 1e-9


def write(source: Path, folder: Path, release: int, flaw: Flaw) -> Path:
    """The model of ``source`` under another release, in a folder of its own below ``folder``.

    Its threshold is out of reach, so that a good release never alarms on the rig's meters.
    """
    manifest: dict[str, Any] = json.loads((source / "manifest.json").read_text())
    out = folder / f"{manifest['name']}-{release}"
    shutil.copytree(source, out)
    manifest["release"], manifest["version"] = release, f"1.{release}.0"
    manifest["output"]["threshold"] = _ALWAYS if flaw == "worse" else _NEVER
    if flaw == "golden":
        _spoil(out / manifest["golden"]["file"])
    for entry in manifest["files"]:
        content = (out / entry["name"]).read_bytes()
        entry["sha256"], entry["size"] = hashlib.sha256(content).hexdigest(), len(content)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return out


def _spoil(golden: Path) -> None:
    with np.load(golden) as arrays:
        inputs, outputs = arrays["inputs"], arrays["outputs"]
    np.savez(golden, inputs=inputs, outputs=outputs + 100.0)
