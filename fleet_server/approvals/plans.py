"""What a change would do, as people are shown it and as it is held against the world again. Pure.

Each journey says so of its own changes; :mod:`.proposals` knows nothing of any of them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.access.roles import Permission
from fleet_server.audit.chain import Change, canonical, digest_of
from fleet_server.errors import BadChange

T = TypeVar("T", bound=msgspec.Struct)

Arguments = Mapping[str, Any]
"""What somebody asks for, as JSON holds it."""

Carry = Callable[[], list[Change]]
"""Does it, once; what the audit is to hold of it."""

RUNS: Final = "runs"
"""What devices run is shown and not held to: one that catches up late changes nothing of what was agreed."""


class Difference(NamedTuple):
    """One line of the diff; ``before`` and ``after`` are what JSON can hold, None for nothing."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Touched:
    """A device that a change reaches: where it stands, and which release it is to have and runs now."""

    id: str
    site: str
    has: int | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Radius:
    """What a change reaches: named devices, or all of a site, or the whole tenant.

    ``sites`` are those whose rules and approvers count; with ``everywhere`` every site does, also one
    that comes later. ``count`` is how many devices that are now.
    """

    sites: tuple[str, ...] = ()
    count: int = 0
    everywhere: bool = False
    devices: tuple[Touched, ...] = ()

    @staticmethod
    def of(devices: tuple[Touched, ...]) -> "Radius":
        """That of named devices."""
        sites = tuple(sorted({device.site for device in devices}))
        return Radius(sites, len(devices), everywhere=False, devices=devices)


@dataclass(frozen=True, slots=True)
class Plan:
    """A change as it would be made now; ``carry`` makes exactly this one."""

    diff: tuple[Difference, ...]
    radius: Radius
    carry: Carry


Planner = Callable[[Session, str, str, Arguments], Plan]
"""Says what the arguments would do to the world: (session, tenant, the proposal's id, arguments).

It changes nothing, and raises a ServerError where what is asked for makes no sense.
"""


@dataclass(frozen=True, slots=True)
class Action:
    """A kind of change. ``permission`` is what its proposer needs on all that it reaches.

    ``is_outside``: it is not made in the database, so that no transaction holds it; making it twice
    is then the same as making it once.
    """

    name: str
    permission: Permission
    plan: Planner
    is_outside: bool = False


def read(arguments: Arguments, shape: type[T]) -> T:
    """``arguments`` in the shape that their action takes.

    Raises:
        BadChange: they have another one.
    """
    try:
        return msgspec.convert(arguments, shape)
    except msgspec.ValidationError as error:
        raise BadChange(
            _("the change is not as its action takes it: {reason}").format(reason=error)
        ) from error


def change_text(action: str, arguments: Arguments, plan: Plan) -> str:
    """The change in words that are always the same: what is asked for, and what it would change."""
    diff = [list(line) for line in plan.diff]
    return canonical({"action": action, "arguments": arguments, "diff": diff})


def radius_text(radius: Radius) -> str:
    """The radius in words that are always the same."""
    return canonical(asdict(radius))


def seal(identity: str, proposer: str, reason: str, change: str, radius: str) -> str:
    """What an approver agrees to: the digest of everything that they are shown."""
    return digest_of([identity, proposer, reason, change, radius])


def differs(change: str, radius: str, plan: Plan) -> str | None:
    """The field in which ``plan`` is no longer what was proposed; None where it is the same."""
    shown: dict[str, Any] = {line[0]: line for line in json.loads(change)["diff"]}
    now = {line.field: json.loads(canonical(list(line))) for line in plan.diff}
    for field in sorted(shown | now):
        if shown.get(field) != now.get(field):
            return field
    return None if _held(json.loads(radius)) == _held(json.loads(radius_text(plan.radius))) else "radius"


def _held(radius: dict[str, Any]) -> object:
    """What must still be so: which devices, where, and what they are to have."""
    if radius["everywhere"]:
        return True
    devices = [{key: value for key, value in one.items() if key != RUNS} for one in radius["devices"]]
    return [radius["sites"], devices]
