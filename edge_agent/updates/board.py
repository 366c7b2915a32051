"""Whether an artifact fits this board, before it is fetched: by its profile, machine and runtimes.

The profile says what the board is meant to be; that it is so, and what is installed, is looked at here.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from edge_agent.allowance import MIB
from edge_agent.inference.session import PACKAGES
from edge_agent.service.probes import existing
from firmware_profiles import compatibility, schema
from fleet_protocol.targets import Description, Kind, Target
from fleet_protocol.texts import _

PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of Python here, as a build of the agent names the one that it is for."""

RESERVE: Final = 64 * MIB
"""Bytes that an image leaves free: what the agent stores beside it must not come to nothing."""


def problems(description: Description, profile: str) -> list[str]:
    """Why an artifact so described must not run on this board; empty where it may."""
    requires = description.requires
    known = profile if profile in schema.names() else schema.GENERIC
    found = compatibility.problems(requires, schema.load(known))
    machine = os.uname().machine
    if requires.machines and machine not in requires.machines:
        found.append(
            _("made for {machines}, this board is {machine}").format(
                machines=", ".join(requires.machines), machine=machine
            )
        )
    if requires.python and requires.python != PYTHON:
        found.append(
            _("made for Python {wanted}, this board has {python}").format(
                wanted=requires.python, python=PYTHON
            )
        )
    if requires.runtimes and not any(importlib.util.find_spec(PACKAGES[each]) for each in requires.runtimes):
        found.append(
            _("it needs {runtimes}, which is not installed here").format(
                runtimes=_(" or ").join(requires.runtimes)
            )
        )
    return found


def lacking_room(target: Target, folder: Path) -> list[str]:
    """Why an image cannot be kept on the disk of ``folder`` until it is installed; empty where it can.

    A part of it that is here already counts as room. Other artifacts are small beside what a board has.
    """
    if target.description.kind is not Kind.OS:
        return []
    parts = [folder / "downloads" / name for name in (f"{target.sha256}.part", target.sha256)]
    has = sum(part.stat().st_size for part in parts if part.is_file())
    free = shutil.disk_usage(existing(folder)).free + has
    if free >= target.length + RESERVE:
        return []
    return [
        _("it has {size} MiB, and {free} MiB are free; at least {wanted} have to be").format(
            size=target.length // MIB, free=free // MIB, wanted=(target.length + RESERVE) // MIB
        )
    ]
