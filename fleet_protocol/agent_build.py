"""The agent's own software as an artifact: which wheels, for which Python, and how it proves itself. Pure.

It is a tar of ``argan-agent.json`` and the wheels that this names, flat, as a model's is of its files:
a name in a folder would leave no room for a wheel's, which is up to a hundred characters. The wheels are
everything that the agent needs but the inference runtimes, which a board brings or the build adds.
"""

from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ManifestError
from fleet_protocol.manifest import File, Identifier, Positive
from fleet_protocol.messages import Name
from fleet_protocol.targets import Description, Kind, Requirements
from fleet_protocol.texts import _

DOCUMENT: Final = "argan-agent.json"
MAX_DOCUMENT: Final = 64 * 1024
"""Bytes; it is a page of text."""

WHEEL: Final = ".whl"
DISTRIBUTION: Final = "argan-"
"""How the name of the wheel begins that is the agent itself."""

PythonVersion = Annotated[str, msgspec.Meta(pattern=r"^3\.[0-9]{1,2}\Z")]


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a build proves itself on a device: seconds.

    It must run for ``least_s`` without a task that fails, and by then, or at last ``deadline_s`` after its
    start, have shown everything that the version before had: a spool that opens, readings stored, the link.
    Else the version before comes back.
    """

    least_s: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 60.0
    deadline_s: Annotated[float, msgspec.Meta(ge=1.0, le=86_400.0)] = 600.0


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``argan-agent.json`` says. ``machines``: as ``uname -m`` says, empty where any will do."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    name: Identifier = "argan"
    version: Name
    release: Positive
    python: PythonVersion
    machines: tuple[Name, ...] = ()
    health: Health = Health()
    wheels: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=64)]

    @property
    def files(self) -> tuple[File, ...]:
        """The files beside the document."""
        return self.wheels


def parse(document: bytes) -> Build:
    """The build that ``document`` describes.

    Raises:
        ManifestError: it does not parse or contradicts itself; the message says where.
    """
    try:
        build = msgspec.json.decode(document, type=Build)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(_("{name}: {reason}").format(name=DOCUMENT, reason=error)) from None
    for problem in _problems(build):
        raise ManifestError(f"{DOCUMENT}: {problem}")
    return build


def encode(build: Build) -> bytes:
    """``build`` as a document."""
    return msgspec.json.format(msgspec.json.encode(build), indent=1)


def describe(build: Build) -> Description:
    """The description of a build."""
    return Description(
        kind=Kind.AGENT,
        name=build.name,
        version=build.version,
        release=build.release,
        requires=Requirements(machines=build.machines, python=build.python),
    )


def _problems(build: Build) -> list[str]:
    names = [wheel.name for wheel in build.wheels]
    problems = [_("{name!r} is no wheel").format(name=name) for name in names if not name.endswith(WHEEL)]
    if len(set(names)) < len(names):
        problems.append(_("a wheel is named twice"))
    if sum(name.startswith(DISTRIBUTION) for name in names) != 1:
        problems.append(
            _("it must name exactly one wheel of the agent itself, {name}*").format(name=DISTRIBUTION)
        )
    if build.health.deadline_s <= build.health.least_s:
        problems.append(_("health: 'deadline_s' must be longer than 'least_s'"))
    return problems
