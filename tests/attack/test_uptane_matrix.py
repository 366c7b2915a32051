"""Keys are stolen, in every combination that there is: what a device believes then is what was promised.

The tables in docs/update-attacks.md are drawn from what the device did.
"""

import datetime as dt
import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from edge_agent.clock import BUILD_MS
from fleet_protocol.targets import ROLES, Refusal
from fleet_signing.roles import HOLDERS, KEY_NAMES
from tests.support.authority import TestAuthority
from tests.support.ledger import Tried
from tests.support.stolen_keys import (
    DIRECTOR,
    IMAGE,
    KEYS,
    ROOT,
    SERVER,
    TARGETS,
    Goal,
    Victim,
    every_set,
    expected,
    ways,
)

pytestmark = [pytest.mark.attack, pytest.mark.slow, pytest.mark.timeout(300)]

NOW = dt.datetime.fromtimestamp(BUILD_MS / 1000, dt.UTC) + dt.timedelta(days=29)
PAGE = Path(__file__).parents[2] / "docs" / "update-attacks.md"

Counts = tuple[int, ...]
"""How many keys of each holder were stolen; which of them makes no difference."""

ALL = {role: holders.keys for role, holders in HOLDERS.items()} | {IMAGE: (IMAGE,), DIRECTOR: (DIRECTOR,)}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, authority: TestAuthority) -> Victim:
    return Victim(tmp_path_factory.mktemp("victim"), authority, NOW)


def achieved(victim: Victim, stolen: frozenset[str], role: str, goal: Goal) -> bool:
    """Whether the device lets a thief of ``stolen`` reach ``goal`` in any way."""
    judgments = [victim.tries(way) for way in ways(stolen, role, goal)]
    return any(each.believed for each in judgments)


def counted(stolen: Iterable[str]) -> Counts:
    held = set(stolen)
    return tuple(len(held.intersection(keys)) for keys in ALL.values())


def test_no_set_of_stolen_keys_is_worth_more_than_was_promised(victim: Victim, tried: Tried) -> None:
    sets = {counted(stolen): stolen for stolen in every_set()}
    for stolen in sets.values():
        for role, goal in itertools.product(ROLES, Goal):
            assert achieved(victim, stolen, role, goal) == expected(stolen, role, goal), (stolen, role, goal)
    believed, refused = victim.attempts
    assert f"of {believed + refused} ways" in PAGE.read_text()
    assert f"{believed} are believed, because the keys are enough, and {refused} refused" in PAGE.read_text()
    tried(refused)


def test_what_a_thief_does_not_reach_is_refused_as_an_attack(victim: Victim) -> None:
    """Nothing fails by accident: what is not believed was refused, and as what it is."""
    for stolen in (frozenset[str](), SERVER, frozenset(KEYS)):
        for role, goal in itertools.product(ROLES, Goal):
            for way in ways(stolen, role, goal):
                judgment = victim.tries(way)
                if not judgment.believed:
                    assert set(judgment.refusals) <= {Refusal.FORGED, Refusal.ROLLBACK}, way
                    assert judgment.refusals, way


def test_the_tables_say_what_the_device_did(victim: Victim) -> None:
    page = PAGE.read_text()
    missing = [line for line in [*smallest_sets(victim), *worth(victim)] if line not in page]
    assert not missing, "docs/update-attacks.md lacks:\n" + "\n".join(missing)


def smallest_sets(victim: Victim) -> list[str]:
    """For each goal the sets of which no key may be missing."""
    lines = ["| what a thief makes a device do | with a model, policy, … of the role | keys that it takes |"]
    for goal, role in itertools.product(Goal, ROLES):
        least: list[frozenset[str]] = []
        for stolen in _one_of_each_count():
            if not any(smaller <= stolen for smaller in least) and achieved(victim, stolen, role, goal):
                least.append(stolen)
        lines.append(f"| {goal} | `{role}` | {', or '.join(map(_named, least)) or 'none is enough'} |")
    return lines


def _one_of_each_count() -> list[frozenset[str]]:
    """One set for each count, the smallest first."""
    found: dict[Counts, frozenset[str]] = {}
    for stolen in every_set():
        found.setdefault(counted(stolen), stolen)
    return list(found.values())


def worth(victim: Victim) -> list[str]:
    """For the sets that a person asks about: what they are worth."""
    lines = ["| stolen | forge | choose among what is published | go back |"]
    for name, stolen in _asked_about():
        can = {goal: [role for role in ROLES if achieved(victim, stolen, role, goal)] for goal in Goal}
        lines.append(f"| {name} | " + " | ".join(_roles(can[goal]) for goal in Goal) + " |")
    return lines


def _asked_about() -> list[tuple[str, frozenset[str]]]:
    single = [(_named(frozenset({key})), frozenset({key})) for key in KEYS if key[-1] not in "23"]
    groups = {role: frozenset(HOLDERS[role].keys[: HOLDERS[role].threshold]) for role in HOLDERS}
    enough = [groups[role] for role in HOLDERS if len(groups[role]) > 1]
    offline = frozenset(KEY_NAMES)
    root = frozenset(HOLDERS[ROOT].keys)
    with_server = [SERVER, *(SERVER | groups[role] for role in (*ROLES, TARGETS))]
    with_director = [groups[role] | {DIRECTOR} for role in ROLES]
    with_image = [groups[role] | {IMAGE} for role in ROLES]
    many = [
        ("everything offline but the root", offline - root),
        ("everything but the root", frozenset(KEYS) - root),
        ("one root key and everything that is not the root's and not the director's",
         frozenset(KEYS) - {*HOLDERS[ROOT].keys[1:], DIRECTOR}),
    ]  # fmt: skip
    return (
        single + [(_named(each), each) for each in enough + with_server + with_director + with_image] + many
    )


def _named(stolen: frozenset[str]) -> str:
    words = []
    for role, keys in ALL.items():
        number = len(stolen.intersection(keys))
        if number:
            words.append(f"`{role}`" if len(keys) == 1 else f"{number} of {len(keys)} `{role}`")
    return " + ".join(words)


def _roles(roles: list[str]) -> str:
    if len(roles) == len(ROLES):
        return "**everything**"
    return ", ".join(f"`{role}`" for role in roles) or "–"
