"""The power is cut before every act of an update that changes a file, and in every state that a cut may leave
on the disk: the device comes up with the old or the new version, and gets where it was going.

What lives and ends is the look with its verifier, the executor and the store, on a stick's bundle; the
runtime is left out. Whole agents are cut in tests/integration/test_agent_power_cut.py.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import TestAuthority
from tests.support.cut_counts import Cuts
from tests.support.cut_site import SCENARIOS, CutSite, Lives

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUICK = ("the first update", "a model that is rolled back")
SOME_ALWAYS = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.power_cut]) for name in SCENARIOS
]


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    with Lives.running() as lives:
        yield lives


@pytest.fixture
def site(scenario: str, authority: TestAuthority) -> Iterator[CutSite]:
    """In memory, where there is such a place: nothing has to wait for a real disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield CutSite(Path(folder), authority, SCENARIOS[scenario])


@pytest.mark.parametrize("scenario", SOME_ALWAYS)
def test_killed_before_every_act(site: CutSite, lives: Lives, cuts: Cuts, scenario: str) -> None:
    acts = site.acts(lives)
    assert acts > 60, "there is something to cut"
    for at in range(acts):
        site.cut(lives, at)
    cuts(f"killed before every act, {scenario}", acts)


@pytest.mark.parametrize("scenario", SOME_ALWAYS)
def test_every_disk_that_a_cut_may_leave(site: CutSite, lives: Lives, cuts: Cuts, scenario: str) -> None:
    cuts(f"disks that a cut may leave, {scenario}", site.states(lives, thorough=False))


@pytest.mark.power_cut
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_every_disk_that_a_cut_may_leave_down_to_the_cache(
    site: CutSite, lives: Lives, cuts: Cuts, scenario: str
) -> None:
    cuts(f"disks that a cut may leave, the cache too, {scenario}", site.states(lives, thorough=True))
