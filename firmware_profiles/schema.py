"""What a firmware profile is: the typed form of one TOML a board, and the reading of those shipped here.

A profile tells what every board of its name has *at least*, and what an agent may use of it. Each
figure says where it comes from, because most are a vendor's word and some are our choice. Nothing
here looks at the board that it runs on.
"""

import tomllib
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

import msgspec

from firmware_profiles.errors import ProfileInvalid, ProfileUnknown
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import Line, Name
from fleet_protocol.texts import _

FORMAT: Final = 1
"""The version of the form; a profile of another one is refused."""

GENERIC: Final = "generic"
"""The profile of a board that nobody described; an agent goes by it where it knows no better."""

_SUFFIX: Final = ".toml"

ProfileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
SourceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z")]
Prose = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Basis(StrEnum):
    """What a figure rests on."""

    STATED = "stated"
    """A vendor, or the source of a driver, says so; nobody here checked it on a board."""
    MEASURED = "measured"
    """Measured by this project; the source says on what."""
    CHOSEN = "chosen"
    """Our decision; the source says why."""


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole number with where it comes from; its unit is in the key's name."""

    value: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    basis: Basis
    source: SourceName


class Seconds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A duration in seconds with where it comes from."""

    value: Annotated[float, msgspec.Meta(ge=0.01, le=86_400.0)]
    basis: Basis
    source: SourceName


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The processor. ``machines``: what ``uname -m`` may say; empty promises none in particular."""

    name: Line
    machines: tuple[Name, ...]
    cores: Count


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Memory of the smallest board of this name; firmware and kernel keep a part of it."""

    installed_mib: Count


class StorageKind(StrEnum):
    """What the data folder lies on; flash without wear leveling worth the name is worn by commits."""

    SD = "sd"
    EMMC = "emmc"
    SSD = "ssd"
    ANY = "any"


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the board stores on, and how large it is at least."""

    kind: StorageKind
    size_mib: Count


class Runtimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The inference runtimes that may be used, the preferred one first, and what they need."""

    allowed: Annotated[tuple[Runtime, ...], msgspec.Meta(min_length=1)]
    needs: tuple[Line, ...] = ()


class Accelerator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A GPU or the like. ``runtimes``: which of ours use it today; empty is none."""

    name: Line
    runtimes: tuple[Runtime, ...] = ()


class Bus(StrEnum):
    """A way to sensors that the board has, itself or by an everyday adapter."""

    MODBUS_TCP = "modbus-tcp"
    MODBUS_RTU = "modbus-rtu"
    I2C = "i2c"
    SPI = "spi"
    UART = "uart"
    CAN = "can"
    GPIO = "gpio"
    USB = "usb"


class Rtc(StrEnum):
    """Whether the clock goes on while the power is off."""

    BATTERY = "battery"
    OPTIONAL_BATTERY = "optional-battery"
    """There is a clock, but its battery is bought apart and may be missing."""
    NONE = "none"
    UNKNOWN = "unknown"
    """Nobody described the board."""

    @property
    def may_stop(self) -> bool:
        """Whether a believable time after a start may all the same be the time of the last stop."""
        return self in {Rtc.NONE, Rtc.OPTIONAL_BATTERY}


class Watchdog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The hardware watchdog: its kernel driver, and the longest time that it can be set to."""

    driver: Name
    longest_s: Seconds


class Updater(StrEnum):
    """What updates the operating system. The agent never does; it hands images to the two that take them."""

    APT = "apt"
    JETSON_LINUX = "jetson-linux"
    RAUC = "rauc"
    SWUPDATE = "swupdate"
    NONE = "none"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agent may use of the board.

    ``memory_mib``: agent and model workers together, as proportional set size. ``spool_mib``: data
    that waits to be sent. ``artifacts_mib``: delivered models and policies, the retained ones too.
    ``least_flush_interval_s``: commits closer together wear the storage; events are exempt.
    ``threads``: of one model.
    """

    memory_mib: Count
    spool_mib: Count
    artifacts_mib: Count
    least_flush_interval_s: Seconds
    threads: Count


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One board. ``sources`` says in words what the figures' ``source`` names."""

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)]
    name: ProfileName
    title: Line
    description: Prose
    cpu: Cpu
    memory: Memory
    storage: Storage
    runtimes: Runtimes
    accelerators: tuple[Accelerator, ...] = ()
    buses: tuple[Bus, ...]
    rtc: Rtc
    watchdog: Watchdog | None = None
    os_updater: Updater
    limits: Limits
    sources: dict[SourceName, Line]

    def figures(self) -> "dict[str, Count | Seconds]":
        """Every figure by its place in the file: ``cpu.cores``, ``limits.memory_mib``."""
        found: dict[str, Count | Seconds] = {}
        for part in ("cpu", "memory", "storage", "watchdog", "limits"):
            table = getattr(self, part)
            for key in table.__struct_fields__ if table else ():
                value = getattr(table, key)
                if isinstance(value, Count | Seconds):
                    found[f"{part}.{key}"] = value
        return found


def names() -> tuple[str, ...]:
    """The names of the profiles shipped with this version, sorted."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


@cache
def load(name: str) -> Profile:
    """The profile ``name``.

    Raises:
        ProfileUnknown: there is none of this name.
        ProfileInvalid: its file cannot be used, which a test of this project excludes.
    """
    if name not in names():
        raise ProfileUnknown(
            _("no firmware profile is named {name!r}; there are: {names}").format(
                name=name[:64], names=", ".join(names())
            )
        )
    return parse(name, resources.files(__package__).joinpath(name + _SUFFIX).read_text(encoding="utf-8"))


def parse(name: str, content: str) -> Profile:
    """The profile that ``content`` (TOML) of the file ``name`` holds, checked for contradictions.

    Raises:
        ProfileInvalid: with the file, what is wrong and where.
    """
    try:
        profile = msgspec.convert(tomllib.loads(content), Profile)
    except tomllib.TOMLDecodeError as error:
        raise ProfileInvalid(_("{name}: no TOML: {reason}").format(name=name, reason=error)) from None
    except msgspec.ValidationError as error:
        raise ProfileInvalid(f"{name}: {error}") from None
    for problem in _contradictions(name, profile):
        raise ProfileInvalid(f"{name}: {problem}")
    return profile


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile, for editors and for whoever describes a board elsewhere."""
    schema = _with_web_patterns(msgspec.json.schema(Profile))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Profile", **schema}


def _with_web_patterns(node: Any) -> Any:
    r"""JSON Schema's patterns are JavaScript's, where the end of the text is ``$`` and ``\Z`` a letter."""
    if isinstance(node, list):
        return [_with_web_patterns(each) for each in node]
    if not isinstance(node, dict):
        return node
    web = {key: _with_web_patterns(value) for key, value in node.items()}
    if isinstance(pattern := web.get("pattern"), str):
        web["pattern"] = pattern.replace(r"\Z", "$")
    return web


def _contradictions(name: str, profile: Profile) -> list[str]:
    problems = []
    if profile.name != name:
        problems.append(_("'name' is {other!r}; it must be the file's own name").format(other=profile.name))
    problems += _source_problems(profile)
    if len(set(profile.runtimes.allowed)) < len(profile.runtimes.allowed):
        problems.append(_("'runtimes.allowed' names a runtime twice"))
    for accelerator in profile.accelerators:
        if not set(accelerator.runtimes) <= set(profile.runtimes.allowed):
            problems.append(
                _("accelerator {name!r} is used by a runtime that is not allowed").format(
                    name=accelerator.name
                )
            )
    return [*problems, *_limit_problems(profile)]


def _source_problems(profile: Profile) -> list[str]:
    used = {figure.source for figure in profile.figures().values()}
    problems = [
        _("[{place}] rests on source {source!r}, which [sources] does not have").format(
            place=place, source=figure.source
        )
        for place, figure in profile.figures().items()
        if figure.source not in profile.sources
    ]
    problems += [
        _("[sources] has {source!r}, which no figure names").format(source=source)
        for source in profile.sources
        if source not in used
    ]
    return problems


def _limit_problems(profile: Profile) -> list[str]:
    limits, problems = profile.limits, []
    if limits.memory_mib.value > profile.memory.installed_mib.value // 2:
        problems.append(_("the agent may not use more than half of the memory; lower 'limits.memory_mib'"))
    if limits.spool_mib.value + limits.artifacts_mib.value > profile.storage.size_mib.value // 2:
        problems.append(
            _("the agent may not use more than half of the storage; lower 'spool_mib' or 'artifacts_mib'")
        )
    if limits.threads.value > profile.cpu.cores.value:
        problems.append(_("more threads than cores; lower 'limits.threads'"))
    return problems
