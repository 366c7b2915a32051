"""Real agents with real models take real updates: switched without a restart, killed in every state, taken
back when they are bad, brought on a stick."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from fleet_protocol import manifest as mf
from fleet_protocol.messages import Stream, Telemetry, UpdateReport
from fleet_protocol.targets import Target
from tests.support import models
from tests.support.agents import AgentProcess
from tests.support.authority import TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.update_server import UpdateServer
from tests.support.updating import (
    Yard,
    model_artifact,
    model_folder,
    policy_artifact,
    without_encoder,
)
from tests.support.waiting import wait_until

StartAgent = Callable[..., AgentProcess]
STEP_MS = 20
PATIENCE_S = 60


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    yard = Yard(tmp_path / "gw-7", authority)
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as yard.server:
        yard.repositories.direct(yard.device)
        yield yard


@pytest.fixture
def agent(tmp_path: Path, yard: Yard, broker: TestBroker, start_agent: StartAgent) -> AgentProcess:
    """An agent with the first release fitted, which looks every second."""
    assert yard.server
    fitted = model_folder(tmp_path / "fitted", 1)
    rows = tmp_path / "signal.csv"
    rows.write_text("value\n" + "".join(f"{n % 7}\n" for n in range(1000)))
    agent = start_agent(yard.device, broker.port, sections(yard, rows, fitted), run=False)
    step_s = mf.parse((fitted / "manifest.json").read_bytes()).step_s
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[broker]", f"time_factor = {step_s * 1000 / STEP_MS}\n[broker]", 1))
    return agent


def sections(yard: Yard, rows: Path, fitted: Path) -> str:
    assert yard.server
    return f"""\
[spool]
flush_interval_s = 0.1
[[sensors]]
kind = "replay"
name = "recording"
path = "{rows}"
interval_s = {STEP_MS / 1000}
repeat = true
[sensors.columns]
signal = "value"
[[models]]
folder = "{fitted}"
runtime = "litert"
[updates]
url = "{yard.server.url}"
image_root = "{yard.image_root}"
director_root = "{yard.director_root}"
poll_interval_s = 1.0
probation_s = 0.5
probation_windows = 4
retry_cap_s = 1.0
"""


def versions(consumer: Consumer, device: str) -> list[str]:
    """The model version behind every answer, in order."""
    return [
        inference.version
        for batch in consumer.content_of(device)
        if isinstance(batch, Telemetry)
        for inference in batch.inferences
    ]


def report(consumer: Consumer, device: str, name: str) -> UpdateReport | None:
    reported = consumer.reported.get(device)
    return next((each for each in reported.updates if each.name == name), None) if reported else None


def reaches(consumer: Consumer, yard: Yard, name: str, state: str) -> UpdateReport:
    def found() -> UpdateReport | None:
        each = report(consumer, yard.device, name)
        return each if each and each.state == state else None

    return wait_until(found, f"{name} is {state}", PATIENCE_S)


def events(consumer: Consumer, device: str) -> list[str]:
    return [event.name for batch in consumer.content_of(device, Stream.EVENT) for event in batch.events]  # type: ignore[union-attr]


def test_model_and_policy_are_switched_while_everything_flows(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    agent.start()
    device = yard.device
    wait_until(lambda: len(versions(consumer, device)) > 20, "the fitted model answers", PATIENCE_S)
    yard.order(model_artifact(2), policy_artifact(1, cooldown_s=1000.0))
    committed = reaches(consumer, yard, "autoencoder", "committed")
    assert (committed.release, committed.installed, committed.refusal) == (2, 2, "")
    reaches(consumer, yard, "watch", "committed")
    wait_until(lambda: "rule" in events(consumer, device), "the new policy raises its event")
    wait_until(lambda: versions(consumer, device)[-1] == "1.2", "the new model answers")
    assert {"update_committed"} <= set(events(consumer, device))
    (model,) = consumer.reported[device].models
    assert (model.release, model.policy) == (2, "watch 1.1")
    assert agent.log.count("connected to the broker") == 1, "the session was held"
    assert agent.process
    workers = psutil.Process(agent.process.pid).children()
    assert len(workers) <= 2, "the worker of the model before is gone"
    assert agent.stop() == 0
    account_for_every_sample_and_window(consumer, agent, device)


def account_for_every_sample_and_window(consumer: Consumer, agent: AgentProcess, device: str) -> None:
    """Readings come in the recording's order without a hole, answers not more than one a step."""
    agent.start()
    agent.delivered()
    agent.kill()
    epochs = {batch.epoch for batch in consumer.content_of(device)}
    first = min(epochs, key=lambda epoch: min(b.base.mono_ms for b in of_epoch(consumer, device, epoch)))
    batches = of_epoch(consumer, device, first)
    values = [reading.value for batch in batches for reading in batch.readings]
    assert [float(n % 1000 % 7) for n in range(len(values))] == values
    times = [batch.base.mono_ms + each.offset_ms for batch in batches for each in batch.inferences]
    steps = (times[-1] - times[0]) / STEP_MS + 1
    # A stalled machine may cost answers; tests/unit/test_pipeline_exchange.py counts them exactly.
    assert len(times) <= steps + 2, "no window is answered twice"


def of_epoch(consumer: Consumer, device: str, epoch: str) -> list[Telemetry]:
    found = [
        batch
        for batch in consumer.content_of(device)
        if isinstance(batch, Telemetry) and batch.epoch == epoch
    ]
    return sorted(found, key=lambda batch: batch.seq)


def test_a_bad_model_never_runs_and_is_not_taken_again(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    agent.start()
    bad = model_artifact(2, model=without_encoder())
    yard.order(bad)
    failed = reaches(consumer, yard, "autoencoder", "failed")
    assert "golden" in failed.detail
    wait_until(lambda: "update.failed" in consumer.codes(yard.device), "it is told")
    assert yard.server
    looks = len(yard.server.asked)
    wait_until(lambda: len(yard.server.asked) > looks + 8, "it looks again")  # type: ignore[union-attr]
    assert len([path for path, _range in yard.server.asked if path.endswith(".2.tar")]) == 1
    assert set(versions(consumer, yard.device)) <= {"1.1"}
    yard.order(model_artifact(3))
    reaches(consumer, yard, "autoencoder", "committed")
    wait_until(lambda: "update.failed" not in consumer.codes(yard.device), "and that is over")
    explained = edge_agent("update", "status", "--config", str(agent.config))
    assert "models/autoencoder/3.tar 1.3 is installed" in explained.stdout


def test_a_model_that_cries_wolf_is_taken_back_in_its_probation(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    yard.order(model_artifact(2, calm))
    agent.start()
    reaches(consumer, yard, "autoencoder", "committed")
    wait_until(lambda: versions(consumer, yard.device).count("1.2") > 20, "it answers", PATIENCE_S)
    yard.order(model_artifact(3, wolf))
    back = reaches(consumer, yard, "autoencoder", "rolled_back")
    assert "alarm" in back.detail
    assert (back.release, back.installed) == (3, 2)
    assert "1.3" in versions(consumer, yard.device)
    count = len(versions(consumer, yard.device))
    wait_until(lambda: len(versions(consumer, yard.device)) > count + 10, "answers go on")
    assert versions(consumer, yard.device)[-1] == "1.2"
    wait_until(lambda: "update_rolled_back" in events(consumer, yard.device), "it is an event")
    explained = edge_agent("update", "explain", "--config", str(agent.config))
    assert "alarm" in explained.stdout
    assert "higher release" in explained.stdout


STATES = ["downloading", "verified", "staged", "testing", "activating", "probation", "rolling_back"]


@pytest.mark.parametrize("state", STATES)
def test_killed_in_every_state_it_comes_back_and_gets_there(
    yard: Yard, agent: AgentProcess, consumer: Consumer, state: str
) -> None:
    """The journal's file is watched, and the agent killed as soon as it names the state, or one beyond."""
    bad = state == "rolling_back"
    target = order(yard, agent, consumer, bad=bad)
    journal = yard.updates / "journal.json"
    agent.start()
    assert agent.process
    beyond = set(STATES[STATES.index(state) :])
    wait_until(lambda: states(journal) & beyond, f"it is {state}", PATIENCE_S)
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(10)
    agent.start()
    ending = "rolled_back" if bad else "committed"
    end = reaches(consumer, yard, "autoencoder", ending)
    assert end.installed == (0 if bad else target.description.release)
    expected = "1.1" if bad else "1.2"
    wait_until(lambda: (versions(consumer, yard.device) or [""])[-1] == expected, "the right one answers")
    assert set(versions(consumer, yard.device)) <= {"1.1", "1.2"}


def calm(manifest: mf.Manifest) -> mf.Manifest:
    """Nothing is strange to it."""
    return msgspec.structs.replace(manifest, output=msgspec.structs.replace(manifest.output, threshold=1e9))


def wolf(manifest: mf.Manifest) -> mf.Manifest:
    """It passes its golden inputs, and everything that it sees here is strange to it."""
    features = tuple(msgspec.structs.replace(each, center=-1000.0) for each in manifest.features)
    return msgspec.structs.replace(manifest, features=features)


def order(yard: Yard, agent: AgentProcess, consumer: Consumer, *, bad: bool) -> Target:
    """Order release 2 for a probation of 40 windows; a bad one after the fitted one was seen to be calm."""
    text = agent.config.read_text()
    agent.config.write_text(text.replace("probation_windows = 4", "probation_windows = 40"))
    if bad:
        models.rewrite(agent.config.parent.parent / "fitted", calm)
        agent.start()
        wait_until(lambda: len(versions(consumer, yard.device)) > 20, "the fitted one answers", PATIENCE_S)
        agent.stop()
    (target,) = yard.order(model_artifact(2, wolf if bad else None))
    return target


def states(journal: Path) -> set[str]:
    if not journal.exists():
        return set()
    return {entry["state"] for entry in json.loads(journal.read_bytes())["entries"]}


def test_a_hint_makes_it_look_at_once_and_is_not_believed(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    text = agent.config.read_text()
    agent.config.write_text(text.replace("poll_interval_s = 1.0", "poll_interval_s = 86400.0"))
    agent.start()
    server = yard.server
    assert server
    wait_until(lambda: yard.device in consumer.reported, "there is a session", PATIENCE_S)
    consumer.hint(yard.device, 1)  # nothing is ordered: a look, and nothing else
    wait_until(lambda: server.asked, "it looks", PATIENCE_S)
    yard.order(model_artifact(2))
    consumer.hint(yard.device, 2)
    reaches(consumer, yard, "autoencoder", "committed")


def test_a_stick_is_applied_without_the_agent_and_proved_by_it(
    yard: Yard, agent: AgentProcess, consumer: Consumer, tmp_path: Path
) -> None:
    yard.order(model_artifact(2))
    stick = yard.bundle(tmp_path / "stick.tar")
    done = edge_agent("update", "from", str(stick), "--config", str(agent.config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "probation" in done.stdout
    agent.start()
    reaches(consumer, yard, "autoencoder", "committed")
    wait_until(lambda: (versions(consumer, yard.device) or [""])[-1] == "1.2", "it answers")


def test_a_stick_that_comes_too_early_is_not_forgotten_in_silence(
    yard: Yard, agent: AgentProcess, tmp_path: Path
) -> None:
    for release, code in ((2, 0), (3, 7)):
        yard.order(model_artifact(release))
        stick = yard.bundle(tmp_path / f"{release}.tar")
        done = edge_agent("update", "from", str(stick), "--config", str(agent.config))
        assert done.returncode == code, done.stdout + done.stderr
    assert "prove itself first" in done.stderr


def test_a_stick_with_another_devices_word_is_refused_in_words(
    yard: Yard, agent: AgentProcess, tmp_path: Path
) -> None:
    yard.order(model_artifact(2))
    files = {path.replace("gw-7", "gw-8"): content for path, content in yard.repositories.files.items()}
    yard.repositories.direct("gw-8", model_artifact(2).target)
    stolen = {
        path.replace("gw-8", "gw-7"): content
        for path, content in yard.repositories.files.items()
        if "gw-7" not in path
    }
    assert files
    yard.repositories.files.clear()
    yard.repositories.files.update(stolen)
    done = edge_agent("update", "from", str(yard.bundle(tmp_path / "s.tar")), "--config", str(agent.config))
    assert done.returncode == 7
    explained = edge_agent("update", "explain", "--config", str(agent.config))
    assert "wrong_device" in explained.stdout
    assert "another device" in explained.stdout


def edge_agent(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", *arguments], capture_output=True, text=True, check=False
    )
