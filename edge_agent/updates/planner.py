"""What to do about what the director orders: a step for every target, as data. Pure."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fleet_protocol.targets import Kind, Refusal, Standing, Target, judge
from fleet_protocol.texts import _

Key = tuple[Kind, str]
"""What an artifact replaces: kind and name."""


@dataclass(frozen=True, slots=True)
class Install:
    """Fetch it and try it."""

    target: Target


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing: it runs."""

    target: Target


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing yet: an update of the same artifact is under way, maybe to this very target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Refuse:
    """It must not be accepted."""

    target: Target
    refusal: Refusal
    detail: str = ""


Step = Install | Keep | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Situation:
    """What this device is and has.

    ``having`` are the digests that run; ``busy`` what has an update under way. ``problems`` says why
    a target does not fit the board; none means that it does.
    """

    device: str
    having: Mapping[Key, str]
    busy: AbstractSet[Key]
    standings: Mapping[Key, Standing]
    problems: Callable[[Target], list[str]]


def plan(ordered: Iterable[Target], image: Mapping[str, Target], situation: Situation) -> list[Step]:
    """A step for each of ``ordered``; models before the policies that read their answers.

    Images come last: one that takes days over a bad line must not keep everything else waiting.

    ``image`` holds what the image repository says under the same paths. What the director does not
    name stays as it is.
    """
    targets = sorted(ordered, key=_turn)
    places = [_place(target) for target in targets]
    return [
        _step(target, image.get(target.path), situation, twice=places.count(_place(target)) > 1)
        for target in targets
    ]


def _turn(target: Target) -> tuple[bool, Kind, str]:
    return target.description.kind is Kind.OS, target.description.kind, target.path


def _place(target: Target) -> Key:
    """What it takes the place of: of agent and system a board has one, whatever they are called."""
    kind, name = target.key
    return (kind, "") if kind in {Kind.AGENT, Kind.OS} else (kind, name)


def _step(target: Target, image: Target | None, situation: Situation, *, twice: bool) -> Step:
    if problem := _senseless(target, twice=twice):
        return Refuse(target, Refusal.MALFORMED, problem)
    standing = situation.standings.get(target.key, Standing())
    runs = situation.having.get(target.key) == target.sha256
    # What runs is not accepted newly: after a rollback its release is below the highest.
    refusal = judge(target, image, situation.device, Standing() if runs else standing)
    if refusal is not None:
        return Refuse(target, refusal, _detail(target, standing, refusal))
    if runs:
        return Keep(target)
    if target.key in situation.busy:
        return Wait(target)
    if problems := situation.problems(target):
        return Refuse(target, Refusal.WRONG_HARDWARE, "; ".join(problems))
    return Install(target)


def _senseless(target: Target, *, twice: bool) -> str:
    """Why nobody could carry out such an order."""
    if twice:
        return _("the director orders two releases of it at once")
    if target.in_shadow and target.description.kind is not Kind.MODEL:
        return _("only a model can run in shadow")
    return ""


def _detail(target: Target, standing: Standing, refusal: Refusal) -> str:
    if refusal is Refusal.ROLLBACK:
        return _("release {release}; {highest} was accepted here before").format(
            release=target.description.release, highest=standing.highest
        )
    if refusal is Refusal.WRONG_DEVICE:
        return _("meant for {device!r}").format(device=target.description.device)
    return ""
