"""What the agent does when one side does not accept the other, and what it says about it."""

import asyncio
import datetime as dt
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.clock import Clock
from edge_agent.config import Broker
from edge_agent.errors import LinkDown, LinkRefused
from edge_agent.identity.identity import load_identity
from edge_agent.link.transport import Connection, Transport
from fleet_protocol.topics import Channel
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import DAY, Credentials, TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.drafts import HandClock
from tests.support.waiting import free_port, wait_until

StartAgent = Callable[..., AgentProcess]


def section(port: int, credentials: Credentials, host: str = "127.0.0.1") -> Broker:
    return Broker(
        host=host, port=port, ca=credentials.ca, certificate=credentials.certificate, key=credentials.key
    )


@asynccontextmanager
async def session(
    port: int, credentials: Credentials, clock: Clock | None = None
) -> AsyncIterator[Connection]:
    broker = section(port, credentials)
    transport = Transport(load_identity(credentials.name, broker), broker, clock or HandClock())
    async with transport.connect(b"", lambda: b"") as connection:
        yield connection


def try_session(port: int, credentials: Credentials, clock: Clock | None = None) -> None:
    async def attempt() -> None:
        async with session(port, credentials, clock) as connection:
            await connection.subscribe(Channel.ACK)

    asyncio.run(attempt())


@pytest.mark.attack
def test_a_foreign_certificate_is_refused_at_once(broker: TestBroker, tmp_path: Path) -> None:
    foreign = TestAuthority(tmp_path / "foreign", "another fleet").issue("gw-11")
    began = time.monotonic()
    with pytest.raises(LinkRefused, match="the broker's certificate is not accepted"):
        try_session(broker.port, foreign)
    # With the right CA it accepts the broker, which still does not accept it.
    settings = section(broker.port, foreign)
    identity = replace(load_identity("gw-11", settings), ca=broker.authority.ca)

    async def attempt() -> None:
        async with Transport(identity, settings, HandClock()).connect(b"", lambda: b""):
            pass

    with pytest.raises(LinkRefused, match="does not accept this device's certificate"):
        asyncio.run(attempt())
    assert time.monotonic() - began < 5.0


@pytest.mark.attack
def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path / "authority")
    credentials = authority.issue("gw-12")
    authority.revoke(credentials)
    broker = TestBroker(tmp_path / "broker", authority)
    broker.start()
    with pytest.raises(LinkRefused, match="REVOKED"):
        try_session(broker.port, credentials)
    try_session(broker.port, authority.issue("gw-13"))
    broker.stop()


@pytest.mark.attack
def test_an_expired_certificate_is_refused_and_named(broker: TestBroker, authority: TestAuthority) -> None:
    expired = authority.issue("gw-14", begins=-10 * DAY, ends=-DAY)
    with pytest.raises(LinkRefused, match="EXPIRED"):
        try_session(broker.port, expired)
    identity = load_identity("gw-14", section(broker.port, expired))
    problem = identity.date_problem(int(dt.datetime.now(dt.UTC).timestamp() * 1000))
    assert problem is not None
    assert "expired" in problem


def test_nobody_there_is_down_not_refused(authority: TestAuthority) -> None:
    with pytest.raises(LinkDown, match="refused"):
        try_session(free_port(), authority.issue("gw-15"))


def test_a_clock_before_its_floor_skips_dates_and_nothing_else(
    tmp_path: Path, authority: TestAuthority
) -> None:
    later = authority.issue("localhost", begins=DAY, ends=30 * DAY, folder=tmp_path / "later")
    broker = TestBroker(tmp_path / "broker", authority, later)
    broker.start()
    device = authority.issue("gw-16")
    with pytest.raises(LinkRefused, match="not yet valid"):
        try_session(broker.port, device)
    try_session(broker.port, device, HandClock(wall_ms=5_000))
    foreign = TestAuthority(tmp_path / "foreign").issue("gw-16")
    with pytest.raises(LinkRefused):
        try_session(broker.port, foreign, HandClock(wall_ms=5_000))
    broker.stop()


@pytest.mark.attack
def test_a_second_client_with_the_same_certificate_is_told_as_refused(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent, authority: TestAuthority
) -> None:
    agent = start_agent("gw-17", broker.port, replay_section(recording(tmp_path / "flow.csv", 5)))
    wait_until(lambda: "connected to the broker" in agent.log, "the agent is connected")
    thief = _client(authority.folder / "gw-17", "gw-17")
    thief.connect("127.0.0.1", broker.port)
    thief.loop_start()
    wait_until(lambda: "look for another client with this device's identity" in agent.log, "it is told")
    thief.disconnect()
    thief.loop_stop()
    wait_until(lambda: agent.log.count("connected to the broker") > 1, "the agent comes back")
    wait_until(lambda: "link.refused" in consumer.codes("gw-17"), "and the server hears of it")


@pytest.mark.attack
def test_another_device_cannot_take_over_a_session_by_its_client_id(
    tmp_path: Path, broker: TestBroker, consumer: Consumer, start_agent: StartAgent, authority: TestAuthority
) -> None:
    agent = start_agent("gw-18", broker.port, replay_section(recording(tmp_path / "flow.csv", 300)))
    wait_until(lambda: "connected to the broker" in agent.log, "the agent is connected")
    authority.issue("gw-19")
    thief = _client(authority.folder / "gw-19", "gw-18")
    connected: list[object] = []
    thief.on_connect = lambda *arguments: connected.append(arguments[3])
    thief.connect("127.0.0.1", broker.port)
    thief.loop_start()
    wait_until(lambda: connected, "the other client is connected")
    wait_until(lambda: len(consumer.values("gw-18")) == 300, "all readings arrive")
    thief.disconnect()
    thief.loop_stop()
    assert agent.log.count("connected to the broker") == 1


def test_a_stop_is_quick_where_the_network_swallows_everything(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """A listener that never accepts: the connection attempt hangs in its thread."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        agent = start_agent(
            "gw-20", silent.getsockname()[1], replay_section(recording(tmp_path / "flow.csv", 5))
        )
        wait_until(lambda: "sensor.ended" in agent.log, "the agent runs")
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 2.0
        assert "Traceback" not in agent.log


def _client(credentials: Path, name: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=credentials / "ca.pem")
    context.load_cert_chain(credentials / "cert.pem", credentials / "key.pem")
    client.tls_set_context(context)
    return client
