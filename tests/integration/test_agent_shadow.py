"""A real agent runs a model in shadow: compared and reported, never in the way of the one that acts."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge_agent.shadows import NICENESS
from fleet_protocol import manifest as mf
from fleet_protocol.messages import Inference, ShadowReport, Telemetry, UpdateReport
from tests.integration.test_agent_updates import (
    PATIENCE_S,
    STEP_MS,
    StartAgent,
    calm,
    edge_agent,
    events,
    reaches,
    sections,
    wolf,
)
from tests.support.agents import AgentProcess
from tests.support.authority import TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.update_server import UpdateServer
from tests.support.updating import Yard, model_artifact, model_folder, policy_artifact, without_encoder
from tests.support.waiting import wait_until

STRANGE = policy_artifact(1, when="label == 'strange'")


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    yard = Yard(tmp_path / "gw-7", authority)
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as yard.server:
        yard.repositories.direct(yard.device)
        yield yard


@pytest.fixture
def agent(tmp_path: Path, yard: Yard, broker: TestBroker, start_agent: StartAgent) -> AgentProcess:
    """An agent with a calm release fitted, which looks every second."""
    fitted = model_folder(tmp_path / "fitted", 1, calm)
    rows = tmp_path / "signal.csv"
    rows.write_text("value\n" + "".join(f"{n % 7}\n" for n in range(1000)))
    agent = start_agent(yard.device, broker.port, sections(yard, rows, fitted), run=False)
    step_s = mf.parse((fitted / "manifest.json").read_bytes()).step_s
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[broker]", f"time_factor = {step_s * 1000 / STEP_MS}\n[broker]", 1))
    return agent


def inferences(consumer: Consumer, device: str, *, shadow: bool) -> list[Inference]:
    return [
        each
        for batch in consumer.content_of(device)
        if isinstance(batch, Telemetry)
        for each in batch.inferences
        if each.shadow is shadow
    ]


def compared(consumer: Consumer, device: str) -> ShadowReport | None:
    reported = consumer.reported.get(device)
    return next(iter(reported.shadows), None) if reported else None


def in_shadow(consumer: Consumer, device: str) -> UpdateReport | None:
    reported = consumer.reported.get(device)
    return next((each for each in reported.updates if each.mode == "shadow"), None) if reported else None


def becomes(consumer: Consumer, device: str, state: str) -> UpdateReport:
    def found() -> UpdateReport | None:
        each = in_shadow(consumer, device)
        return each if each and each.state == state else None

    return wait_until(found, f"the shadow is {state}", PATIENCE_S)


def shadow_workers(agent: AgentProcess) -> list[psutil.Process]:
    assert agent.process
    return nicer(agent.process.pid)


def nicer(pid: int) -> list[psutil.Process]:
    """The children that yield to their parent: workers of models in shadow."""
    parent = psutil.Process(pid)
    return [each for each in parent.children() if each.nice() == min(19, parent.nice() + NICENESS)]


def grows(consumer: Consumer, device: str, *, shadow: bool) -> None:
    seen = len(inferences(consumer, device, shadow=shadow))
    wait_until(
        lambda: len(inferences(consumer, device, shadow=shadow)) > seen + 20, "answers go on", PATIENCE_S
    )


def status(agent: AgentProcess) -> str:
    return edge_agent("update", "status", "--config", str(agent.config)).stdout


def test_a_shadow_is_reported_and_compared_and_nothing_follows_from_it(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    device, server = yard.device, yard.server
    assert server
    agent.start()
    yard.order(STRANGE, shadows=[model_artifact(2, wolf)])
    committed = becomes(consumer, device, "committed")
    assert (committed.release, committed.installed) == (2, 2)
    reaches(consumer, yard, "watch", "committed")
    grows(consumer, device, shadow=True)
    report = wait_until(
        lambda: (found := compared(consumer, device)) and found.windows > 20 and found, "compared", 90
    )
    assert (report.version, report.against, report.agreement) == ("1.2", "1.1", 0.0)
    assert [(each.acting, each.shadow) for each in report.disagreements] == [("normal", "strange")]
    assert report.max_difference >= report.mean_difference > 0
    assert min(report.latency_us, report.acting_latency_us) > 0
    assert {each.label for each in inferences(consumer, device, shadow=True)} == {"strange"}
    assert {each.version for each in inferences(consumer, device, shadow=False)} == {"1.1"}
    assert "rule" not in events(consumer, device), "the shadow sees a strange thing, and raises nothing"
    said = wait_until(lambda: "agree" in (text := status(agent)) and text, "the agent has written it down")
    assert "models/autoencoder/2.tar 1.2 is installed in shadow" in said
    assert "labels agree on 0.0%" in said

    (worker,) = shadow_workers(agent)
    worker.send_signal(signal.SIGKILL)
    grows(consumer, device, shadow=False)
    grows(consumer, device, shadow=True)
    assert in_shadow(consumer, device), "one killed worker is no fault of the model"

    agent.stop()
    agent.start()
    grows(consumer, device, shadow=True)
    assert len(shadow_workers(agent)) == 1, "it goes on after a restart"

    yard.order(model_artifact(2, wolf), STRANGE)
    wait_until(lambda: "rule" in events(consumer, device), "now it acts, and what it says counts", PATIENCE_S)
    wait_until(lambda: in_shadow(consumer, device) is None, "and it is in shadow no more", PATIENCE_S)
    wait_until(lambda: compared(consumer, device) is None, "nothing is compared any more", PATIENCE_S)
    wait_until(lambda: not shadow_workers(agent), "its worker is gone")
    assert [path for path, _range in server.asked].count(
        next(path for path, _range in server.asked if path.endswith(".2.tar"))
    ) == 1, "promoted without being fetched again"


def test_a_shadow_that_cannot_answer_ends_and_the_acting_one_goes_on(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    device = yard.device
    agent.start()
    yard.order(shadows=[model_artifact(2)])
    becomes(consumer, device, "committed")
    (worker,) = shadow_workers(agent)
    os.kill(worker.pid, signal.SIGSTOP)
    ended = becomes(consumer, device, "rolled_back")
    assert "got no answer" in ended.detail
    assert ended.installed == 0
    grows(consumer, device, shadow=False)
    wait_until(lambda: not shadow_workers(agent), "its worker is gone")
    count = len(inferences(consumer, device, shadow=True))
    grows(consumer, device, shadow=False)
    assert len(inferences(consumer, device, shadow=True)) == count
    yard.order()
    wait_until(lambda: in_shadow(consumer, device) is None, "what is not ordered is not told", PATIENCE_S)
    wait_until(lambda: "update.failed" not in consumer.codes(device), "and raises nothing", PATIENCE_S)


def test_a_shadow_whose_golden_inputs_fail_never_runs(
    yard: Yard, agent: AgentProcess, consumer: Consumer
) -> None:
    agent.start()
    yard.order(shadows=[model_artifact(2, model=without_encoder())])
    failed = becomes(consumer, yard.device, "failed")
    assert "golden" in failed.detail
    grows(consumer, yard.device, shadow=False)
    assert not inferences(consumer, yard.device, shadow=True)
