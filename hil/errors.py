"""The errors of the rigs and scenarios.

::

    HilError
    ├── ScenarioError   a scenario file that cannot be used; names file and line
    ├── RigError        a rig that cannot be had here; says what it needs
    └── StepFailed      what a scenario asks for did not come true
"""


class HilError(Exception):
    """Something about a run that a person has to know; the message says what to do."""


class ScenarioError(HilError):
    """A scenario that does not parse or contradicts itself."""


class RigError(HilError):
    """A rig that this machine or this user cannot provide."""


class StepFailed(HilError):  # noqa: N818 - it says what happened
    """A step did not bring what the scenario asks for."""
