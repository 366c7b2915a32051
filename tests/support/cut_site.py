"""A device whose power is cut while it updates: scenarios, and everything that is tried in each."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from fleet_signing.artifacts import Artifact
from tests.support.authority import TestAuthority
from tests.support.cut_lives import Life, live, start
from tests.support.interposer import NEVER, Control
from tests.support.lost_writes import lay_out, read
from tests.support.updating import Yard, model_artifact, model_folder, policy_artifact

FITTED: Final = 1


@dataclass(frozen=True)
class Scenario:
    """What a device has taken ``before``, what is ordered now, and which of that is no good."""

    orders: tuple[Artifact, ...]
    before: tuple[Artifact, ...] = ()
    bad: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()


_MODELS = {release: model_artifact(release) for release in (2, 3)}
_POLICIES = {release: policy_artifact(release) for release in (2, 3)}
_SECOND = frozenset({_MODELS[3].target.sha256})

SCENARIOS: Final = {
    "the first update": Scenario((_MODELS[2], _POLICIES[2])),
    "the second update": Scenario((_MODELS[3], _POLICIES[3]), (_MODELS[2], _POLICIES[2])),
    "a model that fails its golden inputs": Scenario((_MODELS[3],), (_MODELS[2],), bad=_SECOND),
    "a model that is rolled back": Scenario((_MODELS[3],), (_MODELS[2],), ill=_SECOND),
    "a policy alone": Scenario((_MODELS[2], _POLICIES[3]), (_MODELS[2], _POLICIES[2])),
}


class CutSite:
    """One scenario on many copies of one device, each of which loses its power elsewhere."""

    def __init__(self, folder: Path, authority: TestAuthority, scenario: Scenario) -> None:
        self._folder = folder
        self._scenario = scenario
        self._yard = Yard(folder / "device", authority)
        self._fitted = model_folder(folder / "fitted", FITTED)
        self._control = Control(str(folder / "control"))
        self._copies = 0
        (folder / "past").mkdir()
        if scenario.before:
            self._yard.order(*scenario.before)
            self._stick = self._yard.bundle(folder / "before.tar")
            live(self._life(folder / "past"))
        self._yard.order(*scenario.orders)
        self._stick = self._yard.bundle(folder / "orders.tar")
        self.was = start(self._life(folder / "past"))[1]
        self.ends = live(self._life(self._copy()))

    def acts(self, lives: "Lives") -> int:
        """How many acts the whole update takes."""
        self._control.arm(NEVER)
        assert lives.end(self._life(self._copy())) == 0
        return self._control.acts

    def cut(self, lives: "Lives", at: int) -> None:
        """Cut the power before act ``at``, and see the device come up and get there."""
        self._control.arm(at)
        data = self._copy()
        assert lives.end(self._life(data)) == -9, f"it lived on after act {at}"
        self._comes_back(data, f"a cut before act {at}")

    def states(self, lives: "Lives", *, thorough: bool) -> int:
        """Have the device come up on every state that a cut may leave of its disk; how many there were."""
        record = self._folder / "states"
        life = msgspec.structs.replace(self._life(self._copy()), record=str(record), thorough=thorough)
        assert lives.end(life) == 0
        states = read(record)
        for tree, act in states:
            data = self._folder / "state"
            lay_out(tree, data)
            self._comes_back(data, f"a state before {act}")
        return len(states)

    def _comes_back(self, data: Path, after: str) -> None:
        life = self._life(data)
        _bench, now = start(life)
        assert now.model in {self.was.model, *self._releases("models")}, after
        assert now.policy in {self.was.policy, *self._releases("policies")}, after
        assert live(life) == self.ends, after
        shutil.rmtree(data)

    def _releases(self, role: str) -> set[int]:
        orders = (artifact.target for artifact in self._scenario.orders)
        return {target.description.release for target in orders if target.path.startswith(role)}

    def _copy(self) -> Path:
        self._copies += 1
        data = self._folder / f"copy-{self._copies}"
        shutil.copytree(self._folder / "past", data, symlinks=True)
        return data

    def _life(self, data: Path) -> Life:
        return Life(
            ask=self._yard.ask(bundle=str(self._stick), folder=str(data / "updates")),
            fitted=str(self._fitted),
            bad=self._scenario.bad,
            ill=self._scenario.ill,
            control=str(self._folder / "control"),
        )


class Lives:
    """The process in whose children devices live and end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def end(self, life: Life) -> int:
        """Live ``life``; the exit code, negative for a signal."""
        lines, answers = self._process.stdin, self._process.stdout
        assert lines is not None
        assert answers is not None
        lines.write(msgspec.json.encode(life) + b"\n")
        lines.flush()
        return int(answers.readline())

    @classmethod
    @contextmanager
    def running(cls) -> "Iterator[Self]":
        """Start it, and end it."""
        command = [sys.executable, "-m", "tests.support.cut_lives"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield cls(process)
