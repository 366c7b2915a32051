"""A slot made of an artifact: a virtual environment without pip, filled from the artifact's own wheels.

Nothing of it has a path of its own in it, so that it is made under another name and renamed when it is
whole. No network, no build step and no code of the artifact is involved. Modules are compiled here,
for good: a cache that Python writes at the first start is not flushed, and torn by a power cut it would keep
a good version from starting.
"""

import compileall
import py_compile
import sysconfig
import venv
from pathlib import Path
from typing import Final

from edge_agent import durable
from edge_agent.errors import UpdateRefused
from edge_agent.slots.wheels import Unpacker
from edge_agent.updates.board import PYTHON
from edge_agent.updates.unpack import unpack_listed
from fleet_protocol import agent_build
from fleet_protocol.agent_build import DOCUMENT, MAX_DOCUMENT, Build
from fleet_protocol.errors import ManifestError
from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _

BOARD: Final = "argan-board.pth"
"""Names the packages of the base installation, which come after the slot's own: the inference runtimes."""

_WHEELS: Final = "wheels"


def build(artifact: Path, slot: Path, fitted: Path) -> Build:
    """Make ``slot`` of the tar ``artifact``; ``fitted`` holds the packages of the base installation.

    Everything in it is flushed but for its own name; the caller renames it.

    Raises:
        UpdateRefused: the tar is not in its form, or its wheels are not for this Python.
        OSError: it cannot be written.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(slot)
    for script in (slot / "bin").glob("[Aa]ctivate*"):
        script.unlink()  # they name the folder that this is made in
    wheels = slot / _WHEELS
    said = unpack_listed(artifact, wheels, DOCUMENT, MAX_DOCUMENT, agent_build.parse)
    if said.python != PYTHON:
        raise UpdateRefused(
            Refusal.WRONG_HARDWARE,
            DOCUMENT,
            _("made for Python {wanted}, this board has {python}").format(wanted=said.python, python=PYTHON),
        )
    site = site_of(slot)
    unpacker = Unpacker(site)
    for wheel in said.wheels:
        unpacker.add(wheels / wheel.name)
    (wheels / DOCUMENT).rename(slot / DOCUMENT)
    durable.remove(wheels)
    _compile(site)
    (site / BOARD).write_text(f"{fitted}\n", encoding="utf-8")
    _flush(slot)
    return said


def site_of(slot: Path) -> Path:
    """The folder of packages in ``slot``."""
    base = str(slot)
    return Path(sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base}))


def described(slot: Path) -> Build:
    """What the build in ``slot`` says of itself.

    Raises:
        ManifestError: it cannot be read.
    """
    try:
        return agent_build.parse((slot / DOCUMENT).read_bytes())
    except OSError as error:
        raise ManifestError(f"{slot / DOCUMENT}: {error.strerror}") from error


def _compile(site: Path) -> None:
    """Compile every module; one that does not compile is no fault as long as nobody imports it."""
    compileall.compile_dir(
        site, quiet=2, maxlevels=64, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )


def _flush(folder: Path) -> None:
    """Flush every file below ``folder`` that was not flushed yet, and every list of names."""
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            _flush(path)
        else:
            durable.flush(path)
    durable.flush(folder)
