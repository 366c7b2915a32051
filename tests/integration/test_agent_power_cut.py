"""The power of a whole agent is cut before every act of its updates: agent, look and model end at once.

One agent, with a real broker, a real update server and a real model, takes one release after another; each
is cut one act later than the one before, until one comes through whole.
"""

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet_protocol.messages import Gap, Stream, Telemetry
from fleet_signing.artifacts import Artifact
from tests.integration.test_agent_updates import PATIENCE_S, agent, versions, yard
from tests.support.agents import AgentProcess
from tests.support.consumer import Consumer
from tests.support.cut_counts import Cuts
from tests.support.interposer import NEVER, Control
from tests.support.updating import Yard, model_artifact, policy_artifact
from tests.support.waiting import wait_until

__all__ = ["agent", "yard"]

pytestmark = [pytest.mark.power_cut, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
NAMES = {"models": "autoencoder", "policies": "watch"}
EPOCHS = {0: Stream.TELEMETRY, 1: Stream.EVENT}


@dataclass
class Mains:
    """An agent in a process group of its own, whose power is cut as a whole."""

    agent: AgentProcess
    control: Control
    starts: int = 0
    recorded: dict[tuple[str, Stream], int] = field(default_factory=dict)

    def on(self) -> None:
        """Start it."""
        paths = os.pathsep.join([str(ROOT / "tests" / "support" / "interposed"), str(ROOT)])
        control = str(self.agent.config.parent / "control")
        cut = {"ARGAN_CUT_ROOT": str(self.agent.data / "updates"), "ARGAN_CUT_CONTROL": control}
        with (self.agent.config.parent / "agent.log").open("ab") as log:
            self.agent.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(self.agent.config)],
                stderr=log,
                env=os.environ | {"PYTHONPATH": paths} | cut,
                start_new_session=True,
            )
        self.starts += 1

    def has_ended(self) -> bool:
        """Whether the power was cut; then what the spool had recorded is kept in mind."""
        process = self.agent.process
        assert process is not None
        if process.poll() is None:
            return False
        assert process.returncode == -signal.SIGKILL, self.agent.log[-2000:]
        self.control.arm(NEVER)
        with contextlib.closing(sqlite3.connect(self.agent.data / "spool.db")) as spool:
            rows = spool.execute(
                "SELECT name, priority, assigned FROM counter JOIN epoch ON epoch.number = counter.epoch"
            )
            for name, priority, assigned in rows:
                self.recorded[name, EPOCHS[priority]] = assigned
        return True

    def off(self) -> None:
        """End whatever of it still runs."""
        if self.agent.process is not None and self.agent.process.poll() is None:
            os.killpg(self.agent.process.pid, signal.SIGKILL)
            self.agent.process.wait(10)


@pytest.fixture
def mains(agent: AgentProcess) -> Iterator[Mains]:
    text = agent.config.read_text()
    # It looks when it is told to, so that the acts of one update follow each other.
    agent.config.write_text(text.replace("poll_interval_s = 1.0", "poll_interval_s = 86400.0"))
    control = Control(str(agent.config.parent / "control"))
    control.arm(NEVER)
    mains = Mains(agent, control)
    yield mains
    mains.off()
    control.close()


def quiet_policy(release: int) -> Artifact:
    """One that finds nothing: what finds more than the policy before does not pass its probation."""
    return policy_artifact(release, "score > 1e9")


@pytest.mark.parametrize(("role", "make"), [("models", model_artifact), ("policies", quiet_policy)])
def test_cut_before_every_act_of_an_update(
    mains: Mains, yard: Yard, consumer: Consumer, cuts: Cuts, role: str, make: Callable[[int], Artifact]
) -> None:
    mains.on()
    wait_until(lambda: len(versions(consumer, yard.device)) > 5, "the fitted model answers", PATIENCE_S)
    for at in itertools.count():
        release = at + 2
        mains.control.arm(at)
        yard.order(make(release))
        consumer.hint(yard.device, release)

        def is_over(release: int = release) -> bool:
            return mains.has_ended() or is_committed(consumer, yard, NAMES[role], release)

        wait_until(is_over, f"release {release} is there, or was cut", PATIENCE_S)
        if not mains.has_ended():
            break
        mains.on()
        wait_until(
            lambda release=release: is_committed(consumer, yard, NAMES[role], release),
            f"release {release} is there after a cut",
            PATIENCE_S,
        )
    assert at > 60, "there is something to cut"
    account_for_everything(mains, consumer, yard.device)
    cuts(f"whole agents before every act, {role}", at)


def is_committed(consumer: Consumer, yard: Yard, name: str, release: int) -> bool:
    reported = consumer.reported.get(yard.device)
    return any(
        (each.name, each.state, each.release) == (name, "committed", release)
        for each in (reported.updates if reported else ())
    )


def account_for_everything(mains: Mains, consumer: Consumer, device: str) -> None:
    """What the spool had recorded before each cut has come, each number once; no version ever goes back."""
    mains.agent.delivered()
    for (epoch, stream), assigned in mains.recorded.items():
        assert consumer.mark((device, epoch, stream)) >= assigned, "a number is missing"
    batches = [batch for batch in consumer.content_of(device) if not isinstance(batch, Gap)]
    assert len(batches) == len(consumer.content_of(device)), "nothing was given up"
    values = [reading.value for each in batches if isinstance(each, Telemetry) for reading in each.readings]
    begun = sum(not follows(value, before) for before, value in zip([None, *values], values, strict=False))
    assert begun <= mains.starts, "readings come without a hole, from each start on"
    releases = [int(version.removeprefix("1.")) for version in versions(consumer, device)]
    assert releases == sorted(releases)


def follows(value: float | None, before: float | None) -> bool:
    """Whether the recording goes on so: from 0 to 6 again and again, and anew after line 1000, a 5."""
    assert value is not None
    return before is not None and (value == (before + 1) % 7 or (before, value) == (5, 0))
