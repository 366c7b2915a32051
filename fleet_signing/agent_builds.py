"""A build of the agent's own software: wheels as one tar, with what they say of themselves. Pure.

Python, machines and version are read from the wheels' names, so that nobody can write down others. What
the wheels hold is not run here; a device tries a build before it switches to it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fleet_protocol import agent_build
from fleet_protocol.agent_build import DISTRIBUTION, DOCUMENT, WHEEL, Build, Health
from fleet_protocol.errors import ManifestError
from fleet_protocol.manifest import File, verify_file
from fleet_protocol.texts import _
from fleet_signing import archive
from fleet_signing.errors import ArtifactError

_PARTS: Final = (5, 6)
"""Name, version, maybe a build number, Python, ABI and platform."""

_ANY: Final = "any"
_ABI3: Final = "abi3"


@dataclass(frozen=True, slots=True)
class Wheel:
    """What a wheel's name says: ``machines`` is empty where it runs on any."""

    name: str
    version: str
    python: str
    machines: frozenset[str]


def pack(wheels: Mapping[str, bytes], release: int, health: Health) -> bytes:
    """The build of ``wheels``, by their file names, as an artifact's bytes.

    Raises:
        ArtifactError: they are not wheels of one agent for one Python.
    """
    files = tuple(
        File(name, hashlib.sha256(content).hexdigest(), len(content))
        for name, content in sorted(wheels.items())
    )
    version, python, machines = _agreed(wheels)
    build = Build(
        version=version, release=release, python=python, machines=machines, health=health, wheels=files
    )
    document = agent_build.encode(build)
    content = archive.pack({**wheels, DOCUMENT: document})
    read(content)
    return content


def read(content: bytes) -> Build:
    """The build that a tar holds; every wheel is verified.

    Raises:
        ArtifactError: it is no tar as :mod:`fleet_signing.archive` makes it, a wheel is not the one that is
            named, or they do not say what the document says.
    """
    places = archive.places(content)
    if DOCUMENT not in places:
        raise ArtifactError(
            _("the build holds no {name}; make it with 'fleet agent pack'").format(name=DOCUMENT)
        )
    document = content[places.pop(DOCUMENT)]
    if len(document) > agent_build.MAX_DOCUMENT:
        raise ArtifactError(_("{name} is too long").format(name=DOCUMENT))
    try:
        build = agent_build.parse(document)
        for name in sorted({wheel.name for wheel in build.wheels} ^ set(places)):
            raise ArtifactError(
                _("{name!r} is in {document} alone, or in the tar alone").format(name=name, document=DOCUMENT)
            )
        for wheel in build.wheels:
            verify_file(wheel, content[places[wheel.name]])
    except ManifestError as error:
        raise ArtifactError(str(error)) from error
    if (build.version, build.python, build.machines) != _agreed(places):
        raise ArtifactError(_("{name} says other things than its wheels").format(name=DOCUMENT))
    return build


def of_name(name: str) -> Wheel:
    """What the wheel called ``name`` says of itself; raises :class:`ArtifactError`."""
    parts = name.removesuffix(WHEEL).split("-")
    if not name.endswith(WHEEL) or len(parts) not in _PARTS:
        raise ArtifactError(_("{name!r} is not the name of a wheel").format(name=name[:100]))
    python, abi, platforms = parts[-3:]
    exact = python.removeprefix("cp") if python.startswith("cp") and abi != _ABI3 else ""
    machines = frozenset(_machine(platform) for platform in platforms.split(".") if platform != _ANY)
    return Wheel(parts[0], parts[1], f"{exact[:1]}.{exact[1:]}" if exact else "", machines)


def _machine(platform: str) -> str:
    """``manylinux_2_28_x86_64`` and ``linux_aarch64`` end in what ``uname -m`` says."""
    if not platform.startswith(("manylinux", "linux")):
        raise ArtifactError(
            _("{platform!r} is no Linux; give wheels for the device").format(platform=platform)
        )
    return next(
        (known for known in ("x86_64", "aarch64", "riscv64") if platform.endswith(f"_{known}")), platform
    )


def _agreed(names: Mapping[str, object]) -> tuple[str, str, tuple[str, ...]]:
    """Version, Python and machines that all wheels agree on."""
    wheels = [of_name(name) for name in names]
    versions = [wheel.version for wheel in wheels if f"{wheel.name}-" == DISTRIBUTION]
    pythons = {wheel.python for wheel in wheels} - {""}
    machines = [wheel.machines for wheel in wheels if wheel.machines]
    if len(versions) != 1:
        raise ArtifactError(
            _("give exactly one wheel of the agent itself, {name}*").format(name=DISTRIBUTION)
        )
    if len(pythons) != 1:
        raise ArtifactError(
            _("the wheels must be for one version of Python; they are for {found}").format(
                found=", ".join(sorted(pythons)) or _("any")
            )
        )
    common = frozenset.intersection(*machines) if machines else frozenset()
    if machines and not common:
        raise ArtifactError(_("the wheels are for different machines"))
    return versions[0], pythons.pop(), tuple(sorted(common))
