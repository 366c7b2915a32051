"""Two faulty releases of the leak model, and a mended one, for demonstration and tests of what stops them.

``python -m use_cases.water_network.faulty_models FOLDER`` writes ``FOLDER/bad`` and ``FOLDER/worse``.
Both are mistakes that people make:

* *bad*, release 3: the files of one training packed with the golden inputs of another. Every device
  that runs its golden inputs sees it.
* *worse*, release 4: weights and golden inputs are right, and pass, but the manifest feeds the
  readings themselves instead of their difference from the week before. Golden inputs are taken after
  the features, so only real windows show it: it says leak at nearly every one.

:func:`make_mended`, release 5, is the worse one put right.
"""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Final

import msgspec

from fleet_protocol import manifest
from fleet_protocol.manifest import Feature, FeatureKind, File, Manifest
from use_cases.water_network import models_folder
from use_cases.water_network.runtimes import load_manifest

_FIRST: Final = models_folder() / "pressure_leak"
_SECOND: Final = models_folder() / "pressure_leak_2"


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    make_bad(folder / "bad")
    make_worse(folder / "worse")
    print(f"Wrote {folder / 'bad'} and {folder / 'worse'}")


def make_bad(folder: Path, version: str = "1.1.1", release: int = 3) -> None:
    """Write a model into ``folder`` that fails its golden inputs."""
    shutil.copytree(_FIRST, folder)
    given = load_manifest(_SECOND)
    shutil.copy(_SECOND / given.golden.file, folder)
    made = msgspec.structs.replace(load_manifest(_FIRST), golden=given.golden)
    _write(folder, made, version, release)


def make_worse(folder: Path, version: str = "1.1.2", release: int = 4) -> None:
    """Write a model into ``folder`` that passes its golden inputs and sees leaks everywhere."""
    shutil.copytree(_SECOND, folder)
    given = load_manifest(_SECOND)
    features = tuple(_raw(feature) for feature in given.features)
    _write(folder, msgspec.structs.replace(given, features=features), version, release)


def make_mended(folder: Path, version: str = "1.1.3", release: int = 5) -> None:
    """Write the worse model into ``folder`` with its manifest put right."""
    shutil.copytree(_SECOND, folder)
    _write(folder, load_manifest(_SECOND), version, release)


def _raw(feature: Feature) -> Feature:
    if feature.kind is not FeatureKind.SEASONAL:
        return feature
    return msgspec.structs.replace(feature, kind=FeatureKind.STANDARD, cycles=0)


def _write(folder: Path, made: Manifest, version: str, release: int) -> None:
    files = tuple(_entry(folder / file.name) for file in made.files)
    made = msgspec.structs.replace(made, version=version, release=release, files=files)
    (folder / "manifest.json").write_bytes(manifest.encode(made))


def _entry(file: Path) -> File:
    content = file.read_bytes()
    return File(file.name, hashlib.sha256(content).hexdigest(), len(content))


if __name__ == "__main__":
    main()
