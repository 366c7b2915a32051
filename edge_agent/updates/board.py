"""Whether an artifact fits this board, before it is fetched: by its profile, machine and runtimes.

The profile says what the board is meant to be; that it is so, and what is installed, is looked at here.
"""

import importlib.util
import os
from typing import Final

from edge_agent.inference.session import PACKAGES
from firmware_profiles import compatibility, schema
from fleet_protocol.targets import Description, Kind
from fleet_protocol.texts import _

_INSTALLED: Final = frozenset({Kind.MODEL, Kind.POLICY})


def problems(description: Description, profile: str) -> list[str]:
    """Why an artifact so described must not run on this board; empty where it may."""
    if description.kind not in _INSTALLED:
        return [_("this agent cannot install an artifact of the kind {kind}").format(kind=description.kind)]
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
    if requires.runtimes and not any(importlib.util.find_spec(PACKAGES[each]) for each in requires.runtimes):
        found.append(
            _("it needs {runtimes}, which is not installed here").format(
                runtimes=_(" or ").join(requires.runtimes)
            )
        )
    return found
