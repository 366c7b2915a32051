"""An agent with a real model: answers and events arrive, a killed worker costs only its answers."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edge_agent.pipeline.keeper import FILE_NAME
from edge_agent.pipeline.memory import decode
from fleet_protocol.manifest import parse
from fleet_protocol.messages import Events, Stream, Telemetry
from tests.support.agents import AgentProcess
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.waiting import wait_until

StartAgent = Callable[..., AgentProcess]

pytest.importorskip("ai_edge_litert")

PSS_MIB = 90
"""The promise for an agent with an isolated worker and a LiteRT model, both together."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tests.support.models import autoencoder

    folder = tmp_path / "model"
    folder.mkdir()
    return autoencoder(folder)


def sections(folder: Path, tmp_path: Path, step_ms: int = 20) -> str:
    """A recording of the model's metric; the world runs so fast that a step takes ``step_ms``."""
    manifest = parse((folder / "manifest.json").read_bytes())
    metric = manifest.features[0].metric
    rows = tmp_path / "metric.csv"
    rows.write_text("value\n" + "".join(f"{n % 7}\n" for n in range(100)))
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"""\
format = 1
name = "test"
version = "1"
release = 1
model = "{manifest.name}"
[[rules]]
name = "always"
when = "score >= 0.0"
outcome = "event"
cooldown_s = 1.0
text = "a model answered"
"""
    )
    return f"""\
[spool]
flush_interval_s = 0.1
[[sensors]]
kind = "replay"
name = "recording"
path = "{rows}"
interval_s = {step_ms / 1000}
repeat = true
[sensors.columns]
{metric} = "value"
[[models]]
folder = "{folder}"
policy = "{policy}"
runtime = "litert"
"""


def faster(agent: AgentProcess, folder: Path, step_ms: int = 20) -> None:
    step_s = parse((folder / "manifest.json").read_bytes()).step_s
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[broker]", f"time_factor = {step_s * 1000 / step_ms}\n[broker]", 1))


def test_answers_and_events_arrive_and_a_killed_worker_comes_back(
    tmp_path: Path, folder: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-51", broker.port, sections(folder, tmp_path), run=False)
    faster(agent, folder)
    agent.start()
    assert agent.process is not None

    def inferences() -> int:
        return sum(len(b.inferences) for b in consumer.content_of("gw-51") if isinstance(b, Telemetry))

    wait_until(lambda: inferences() > 5, "answers arrive", 40)
    wait_until(lambda: consumer.content_of("gw-51", Stream.EVENT), "and events")
    event = consumer.content_of("gw-51", Stream.EVENT)[0]
    assert isinstance(event, Events)
    assert event.events[0].name == "always"
    (model,) = consumer.reported["gw-51"].models
    assert (model.runtime, model.isolation, model.policy) == ("litert", "worker", "test 1")
    processes = [psutil.Process(agent.process.pid), *psutil.Process(agent.process.pid).children()]
    assert sum(process.memory_full_info().pss for process in processes) < PSS_MIB * 2**20
    (worker,) = processes[1:]
    worker.send_signal(signal.SIGKILL)
    before = inferences()
    wait_until(lambda: inferences() > before + 5, "answers arrive again")
    assert agent.log.count("connected to the broker") == 1
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 2.0
    assert not any(process.is_running() for process in processes)
    memory = decode((agent.config.parent / "data" / FILE_NAME).read_bytes())
    assert [each.digest for each in memory.models] == [model.digest]
    assert memory.models[0].windows is not None


def test_a_policy_that_does_not_fit_is_told_and_the_model_answers(
    tmp_path: Path, folder: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-52", broker.port, sections(folder, tmp_path), run=False)
    faster(agent, folder)
    policy = tmp_path / "policy.toml"
    policy.write_text(policy.read_text().replace("score >= 0.0", "score >= 'high'"))
    agent.start()
    wait_until(lambda: "policy.refused" in consumer.codes("gw-52"), "the policy is told", 40)
    wait_until(
        lambda: any(b.inferences for b in consumer.content_of("gw-52") if isinstance(b, Telemetry)),
        "answers arrive",
    )
    assert not consumer.content_of("gw-52", Stream.EVENT)


def test_a_runtime_that_is_not_installed_is_told(
    tmp_path: Path, folder: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    agent = start_agent("gw-53", broker.port, sections(folder, tmp_path), run=False)
    agent.config.write_text(agent.config.read_text().replace('"litert"', '"tflite"'))
    agent.start()
    wait_until(
        lambda: consumer.codes("gw-53") & {"model.missing_runtime", "model.refused"}, "the lack is told", 40
    )
    wait_until(lambda: len(consumer.values("gw-53")) > 20, "readings flow")
