"""A whole agent on a board that is not what its profile says: it works on, and tells."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.agent import Agent
from edge_agent.config import load
from edge_agent.identity.identity import load_identity
from edge_agent.service.board import look
from edge_agent.timesync import is_synchronized
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import ClockState, Telemetry
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.drafts import HandClock
from tests.support.waiting import wait_until

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def on_profile(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> Callable[[str, str], AgentProcess]:
    """Starts an agent of a name on a profile; returns when its three readings have arrived."""

    def start(name: str, profile: str) -> AgentProcess:
        agent = start_agent(name, broker.port, replay_section(recording(tmp_path / "flow.csv", 3)), run=False)
        text = agent.config.read_text()
        agent.config.write_text(text.replace('profile = "simulated"', f'profile = "{profile}"'))
        agent.start()
        wait_until(lambda: consumer.values(name) == [0.0, 1.0, 2.0], "its readings arrive", 30)
        return agent

    return start


def details(consumer: Consumer, device: str, code: str) -> list[str]:
    report = consumer.reported.get(device)
    return [each.detail for each in report.health if each.code == code] if report else []


def test_an_unknown_profile_is_told_and_the_agent_goes_on(
    on_profile: Callable[[str, str], AgentProcess], consumer: Consumer
) -> None:
    on_profile("gw-80", "pi-9")
    wait_until(lambda: details(consumer, "gw-80", "profile.unknown"), "the profile is told")
    assert "there are: generic, " in details(consumer, "gw-80", "profile.unknown")[0]
    assert details(consumer, "gw-80", "profile.exceeded") == []
    assert consumer.reported["gw-80"].profile == "pi-9"


def test_a_board_outside_its_profile_is_told_and_the_agent_goes_on(
    on_profile: Callable[[str, str], AgentProcess], consumer: Consumer
) -> None:
    """A board without a clock of its own: what is sent before the time was set says so."""
    on_profile("gw-81", "raspberry-pi-zero-2-w")
    wait_until(lambda: details(consumer, "gw-81", "profile.exceeded"), "the board is told")
    told = details(consumer, "gw-81", "profile.exceeded")
    flush = "flush: commits every 0.05 s, the profile spares the storage with 10 s"
    assert flush in told  # obeyed all the same: the readings are here
    assert any(each.startswith("machine: ") for each in told) == (look().machine != "aarch64")
    expected = ClockState.TRUSTED if is_synchronized() else ClockState.UNTRUSTED
    (first, *_more) = consumer.content_of("gw-81")
    assert isinstance(first, Telemetry)
    assert first.base.clock is expected


def test_what_is_not_configured_is_the_profiles(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent
) -> None:
    """On a card, readings are committed every five seconds: the first of a batch is about as old."""
    section = replay_section(recording(tmp_path / "flow.csv", 3)).replace("flush_interval_s = 0.05", "")
    agent = start_agent("gw-82", broker.port, section, run=False)
    agent.config.write_text(agent.config.read_text().replace('"simulated"', '"raspberry-pi-5"'))
    agent.start()
    wait_until(lambda: consumer.values("gw-82"), "its readings arrive", 30)
    (batch, *_more) = consumer.content_of("gw-82")
    assert isinstance(batch, Telemetry)
    assert -8_000 < batch.readings[0].offset_ms < -3_000


def test_the_store_and_the_memory_are_the_profiles_too(tmp_path: Path, authority: TestAuthority) -> None:
    process = AgentProcess(tmp_path / "gw-83", authority.issue("gw-83"), 1, "")
    process.config.write_text(process.config.read_text().replace('"simulated"', '"raspberry-pi-zero-2-w"'))
    config = load(process.config)
    agent = Agent(config, load_identity(config.device, config.broker), HandClock())
    assert agent.store._max_bytes == 128 * 2**20
    assert agent._keeper._save_every_s == 10.0
    assert agent._models._setting.runtimes == (Runtime.LITERT,)
