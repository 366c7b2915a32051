"""Builds of the agent from this very checkout: a good one, and one that ends as soon as it starts.

The wheels that an agent needs beside its own were fetched by ``scripts/bootstrap``; its own is made
here, of a copy of the checkout. No network, no code of the agent's is run.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _

WHEELS: Final = Path(sys.prefix) / "wheels"
"""Where ``scripts/bootstrap`` keeps them."""

VERSION: Final = Path("edge_agent/__init__.py")
BROKEN: Final = {
    "edge_agent/__main__.py": (
        "def _run(options: argparse.Namespace) -> int:\n",
        'def _run(options: argparse.Namespace) -> int:\n    raise RuntimeError("a fault of this build")\n',
    )
}
"""A fault that no self-test finds, because it is met only where the agent really starts."""

_CHECKOUT: Final = Path(__file__).parents[3]
_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE")
_PACKAGES: Final = (
    "edge_agent", "firmware_profiles", "fleet_console", "fleet_protocol", "fleet_server", "fleet_signing",
)  # fmt: skip

Changes = Mapping[str, tuple[str, str]]
"""By file: what is replaced by what."""


class BuildError(Exception):
    """The wheels cannot be made."""


def wheels(folder: Path, version: str, changes: Changes | None = None) -> Path:
    """A folder of wheels of the agent in ``version``, under ``folder``; pack it with 'fleet agent pack'.

    Raises:
        BuildError: pip said no.
    """
    source, out = folder / f"source-{version}", folder / f"wheels-{version}"
    _copy(source)
    _replace(source / "pyproject.toml", 'version = "0.1.0"', f'version = "{version}"')
    _replace(source / VERSION, 'VERSION: Final = "0.1.0"', f'VERSION: Final = "{version}"')
    for file, (old, new) in (changes or {}).items():
        _replace(source / file, old, new)
    shutil.copytree(WHEELS, out)
    done = subprocess.run(
        (
            sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps",
            "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(source),
        ),
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(_("the agent's wheel cannot be made: {reason}").format(reason=done.stderr))
    shutil.rmtree(source)
    return out


def _copy(target: Path) -> None:
    target.mkdir(parents=True)
    for name in _SOURCES:
        shutil.copy(_CHECKOUT / name, target)
    for name in _PACKAGES:
        shutil.copytree(_CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    if old not in text:
        raise BuildError(_("{file} does not hold {text!r}").format(file=file, text=old))
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
