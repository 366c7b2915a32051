"""What a thief of keys can make a device believe: each set of stolen keys, tried on the real verifier.

A thief answers every request of the device, and signs with what was stolen; where a signature is
missing, with a key of its own. Which of its ways it takes only depends on how many keys of which role
it has, so every way is tried once, and looked up for each of the thousands of sets.
"""

import copy
import hashlib
import itertools
import shutil
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from edge_agent.updates import marks
from edge_agent.updates.spoken import Accepted, Refused, Said
from fleet_protocol.targets import (
    ACTUATION,
    ROLES,
    Description,
    ImageFormat,
    Kind,
    Refusal,
    Requirements,
    Target,
    path_of,
)
from fleet_signing import ceremony, image, keys
from fleet_signing.artifacts import Artifact
from fleet_signing.metadata import encode, seal
from fleet_signing.roles import HOLDERS, KEY_NAMES
from tests.support.authority import TestAuthority
from tests.support.repositories import Repositories
from tests.support.updating import DEVICE, Yard, write_bundle

ROOT, TARGETS, IMAGE, DIRECTOR = "root", "targets", "image", "director"
KEYS = (*KEY_NAMES, IMAGE, DIRECTOR)
SERVER = frozenset({IMAGE, DIRECTOR})

OLD, ACCEPTED, PUBLISHED, FORGED = range(1, 5)
"""Releases: what the device had, what it has, what is published and not ordered, what nobody published."""


class Goal(StrEnum):
    """What a thief wants of a device."""

    FORGE = "run what nobody published"
    CHOOSE = "run what is published and not meant for it"
    GO_BACK = "run an older release than it has accepted"


class Way(NamedTuple):
    """One way to a goal, by how many stolen keys sign what; None: that document is left as it is.

    ``root``: all keys are replaced, by so many root keys. ``targets``: the role is given to a key of
    the thief's. ``holders``: so many keys of the role sign. ``image``, ``director``: the server's keys.
    """

    role: str
    goal: Goal
    root: int | None = None
    targets: int | None = None
    holders: int | None = None
    image: bool = False
    director: bool = False


def expected(stolen: AbstractSet[str], role: str, goal: Goal) -> bool:
    """Whether a thief of ``stolen`` should reach ``goal`` with an artifact of ``role``: the promise. Pure."""
    everything = _enough(stolen, ROOT)
    if goal is Goal.GO_BACK:
        return False
    if goal is Goal.CHOOSE:
        return everything or DIRECTOR in stolen
    vouches = _enough(stolen, role) or _enough(stolen, TARGETS)
    return everything or (stolen >= SERVER and vouches)


def ways(stolen: AbstractSet[str], role: str, goal: Goal) -> Iterator[Way]:
    """Every way that a thief of ``stolen`` can try."""
    yield Way(role, goal, root=count(stolen, ROOT))
    mine = Way(role, goal, director=DIRECTOR in stolen)
    if goal is not Goal.FORGE:
        yield mine
        return
    mine = mine._replace(image=IMAGE in stolen)
    yield mine._replace(holders=count(stolen, role))
    yield mine._replace(targets=count(stolen, TARGETS))


def every_set() -> Iterator[frozenset[str]]:
    """Every set of keys."""
    for size in range(len(KEYS) + 1):
        yield from map(frozenset, itertools.combinations(KEYS, size))


def count(stolen: AbstractSet[str], role: str) -> int:
    """How many keys of ``role`` are in ``stolen``."""
    return len(stolen.intersection(HOLDERS[role].keys))


def _enough(stolen: AbstractSet[str], role: str) -> bool:
    return count(stolen, role) >= HOLDERS[role].threshold


def artifact(role: str, release: int) -> Artifact:
    """An artifact that ``role`` signs."""
    content = f"{role} {release}".encode()
    description = Description(
        kind=ROLES[role],
        name="thing",
        version=f"1.{release}",
        release=release,
        actuates=role == ACTUATION,
        requires=Requirements(
            model="thing" if role in {"policies", ACTUATION} else "",
            image=ImageFormat.RAUC if ROLES[role] is Kind.OS else None,
            profiles=("raspberry-pi-5-rauc",) if ROLES[role] is Kind.OS else (),
        ),
    )
    target = Target(path_of(description), len(content), hashlib.sha256(content).hexdigest(), description)
    return Artifact(target, content)


@dataclass
class Judgment:
    """What the device made of one way: whether it believed it, and else how it said no."""

    believed: bool
    refusals: list[Refusal]


class Victim:
    """A device with a past, put back to it before each attempt."""

    def __init__(self, folder: Path, authority: TestAuthority, at: datetime) -> None:
        self._folder = folder
        self._at = at
        self.repositories = Repositories(at)
        self._past = Yard(folder / "past", authority, repositories=self.repositories)
        self._authority = authority
        self._known: dict[Way, Judgment] = {}
        for role, release in itertools.product(ROLES, (OLD, ACCEPTED, PUBLISHED)):
            self.repositories.publish(artifact(role, release))
        # One order a role: a policy that acts and one that does not may bear the same name.
        self.repositories.direct(DEVICE)
        self._look(self._past, self.repositories.files)

    @property
    def attempts(self) -> tuple[int, int]:
        """How many different ways were tried on the device that it believed, and that it refused."""
        believed = sum(judgment.believed for judgment in self._known.values())
        return believed, len(self._known) - believed

    def tries(self, way: Way) -> Judgment:
        """Try ``way``, if it was not tried before."""
        if way not in self._known:
            self._known[way] = self._try(way)
        return self._known[way]

    def _try(self, way: Way) -> Judgment:
        wanted = artifact(way.role, _RELEASES[way.goal])
        files = self._all_replaced(way, wanted) if way.root is not None else self._signed(way, wanted)
        shutil.rmtree(self._folder / "now", ignore_errors=True)
        shutil.copytree(self._folder / "past", self._folder / "now")
        now = Yard(self._folder / "now", self._authority, repositories=self.repositories)
        has = marks.load(now.updates).with_release(*wanted.target.key, ACCEPTED)
        marks.save(now.updates, has)
        return _judged(self._look(now, files))

    def _look(self, yard: Yard, files: dict[str, bytes]) -> list[Said]:
        stick = write_bundle(self._folder / "files.tar", files)
        return yard.look(url="", bundle=str(stick))

    def _signed(self, way: Way, wanted: Artifact) -> dict[str, bytes]:
        """With the roots as they are."""
        mine = copy.copy(self.repositories)
        mine.files, mine.roles, mine.versions = dict(mine.files), dict(mine.roles), dict(mine.versions)
        online, own = self.repositories.online, ceremony.OnlineKeys.generate()
        mine.online = ceremony.OnlineKeys(
            online.image if way.image else own.image, online.director if way.director else own.director
        )
        if way.goal is Goal.FORGE:
            signers = [keys.generate(), keys.generate()]
            if way.targets is not None:
                mine.roles[TARGETS] = self._given_away(way.role, signers, way.targets)
            else:
                signers += self.repositories.offline.roles[way.role][: way.holders]
            mine.roles[way.role] = image.add(mine.roles[way.role], wanted.target, signers, self._at)
            mine.files[f"image/targets/{image.served_path(wanted.target)}"] = wanted.content
            mine.release()
        mine.direct(DEVICE, wanted.target)
        return mine.files

    def _given_away(self, role: str, signers: list[keys.CryptoSigner], stolen: int) -> ceremony.Metadata:
        offline = self.repositories.offline.roles
        holders = {each: [signer.public_key for signer in offline[each]] for each in ROLES}
        holders[role] = [signer.public_key for signer in signers]
        version = self.repositories.roles[TARGETS].signed.version + 1
        delegating = image.delegating(holders, version, self._at)
        return seal(delegating, [keys.generate(), *offline[TARGETS][:stolen]])

    def _all_replaced(self, way: Way, wanted: Artifact) -> dict[str, bytes]:
        """With roots that name the thief's keys alone."""
        mine = Repositories(self._at)
        mine.publish(wanted)
        mine.direct(DEVICE, wanted.target)
        files = self.repositories.files | {
            path: content for path, content in mine.files.items() if "root.json" not in path
        }
        stolen = self.repositories.offline.root[: way.root]
        for place, roots in (
            ("image", mine.bundle.image_roots),
            (f"director/{DEVICE}", mine.bundle.director_roots),
        ):
            root = roots[0].signed
            root.version = 2
            files[f"{place}/metadata/2.root.json"] = encode(seal(root, [*mine.offline.root, *stolen]))
        return files


_RELEASES = {Goal.FORGE: FORGED, Goal.CHOOSE: PUBLISHED, Goal.GO_BACK: OLD}


def _judged(said: list[Said]) -> Judgment:
    """An agent may refuse a kind that it does not install; it has believed then that it is genuine."""
    refusals = [each.refusal for each in said if isinstance(each, Refused)]
    believed = any(isinstance(each, Accepted) for each in said) or refusals == [Refusal.WRONG_HARDWARE]
    return Judgment(believed, refusals)
