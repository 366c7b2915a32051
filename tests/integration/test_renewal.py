"""Real agents renew their certificates at a real server: in time, late, by a wrong clock, by hand."""

import asyncio
import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.clock import Clock
from edge_agent.config import load
from edge_agent.identity.renewal import Renewal
from edge_agent.service.health import HealthBoard
from fleet_protocol.messages import ClockState
from fleet_protocol.topics import Channel, topic
from fleet_server.authority import rollover
from tests.integration.test_agent_updates import edge_agent
from tests.support.agents import EnrolledAgent, clock_at, recording, replay_section
from tests.support.device_post import DAY, DevicePost
from tests.support.fleet_broker import Identity, connected
from tests.support.fleet_server import ServerProcess, add, batch
from tests.support.waiting import wait_until

PATIENCE_S = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
    try:
        server.start()
        yield server
    finally:
        server.end()


class Field:
    """A device of a server, and its agent."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        add(server, folder.name, folder)
        self.server = server
        self.post = DevicePost(server, folder)
        self.agent = EnrolledAgent(folder)
        rows = recording(folder / "flow.csv", 1000)
        text = self.agent.config.read_text()
        quick = text.replace("[broker]", "[broker]\nreconnect_cap_s = 0.5", 1)
        self.agent.config.write_text(quick + replay_section(rows, interval_s=0.1, repeat=True))

    def is_renewed(self, before: str) -> bool:
        return self.post.serial != before

    def renews(self, before: str) -> None:
        wait_until(lambda: self.is_renewed(before), "the certificate is another", PATIENCE_S)

    def is_heard(self) -> None:
        def heard() -> bool:
            return bool(self.server.get(f"/v1/devices/{self.post.name}/readings", metric="flow")["items"])

        wait_until(heard, "its readings come", PATIENCE_S)

    def says(self, *words: str) -> None:
        def said() -> bool:
            log = self.agent.log
            return all(word in log for word in words)

        wait_until(said, f"the agent says {words}", PATIENCE_S)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return edge_agent(*arguments, "--config", str(self.agent.config))


@pytest.fixture
def make(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[[str], Field]]:
    """Makes devices by name; their agents end with the test."""
    fields: list[Field] = []

    def field(name: str) -> Field:
        fields.append(Field(server, tmp_path / name))
        return fields[-1]

    yield field
    for each in fields:
        each.agent.end()


def test_a_certificate_is_renewed_in_its_last_third_and_the_session_is_held(
    make: Callable[[str], Field],
) -> None:
    field = make("gw-in-time")
    field.post.age(25 * DAY)
    before = field.post.serial
    field.agent.start()
    field.renews(before)
    field.says("the certificate was renewed, until")
    field.is_heard()
    assert field.agent.log.count("connected to the broker") == 1
    assert field.agent.log.count("certificate.") == 0, "nothing was wrong"
    assert field.post.recorded() == ["certificate.renew"]
    left = field.post.certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29) < left <= dt.timedelta(days=30)
    assert field.agent.stop() == 0


def test_a_board_out_of_a_drawer_renews_in_its_grace_and_then_speaks(make: Callable[[str], Field]) -> None:
    field = make("gw-drawer")
    field.post.age(100 * DAY)
    before = field.post.serial
    checked = field.command("check")
    assert checked.returncode == 4
    assert "the agent renews it while the server's grace lasts" in checked.stdout
    field.agent.start()
    field.says("certificate.grace", "link.refused")
    field.renews(before)
    field.is_heard()
    field.says("certificate.grace is over")
    assert field.post.recorded() == ["certificate.renew_late"]
    assert field.command("check").returncode == 0


def test_after_the_grace_the_agent_says_what_to_do_and_goes_on(make: Callable[[str], Field]) -> None:
    field = make("gw-forgotten")
    field.post.age(300 * DAY)
    field.agent.start()
    field.says("certificate.ends", "the certificate expired 270 days ago", "Enroll the device again")
    wait_until(lambda: field.agent.waiting() > 0, "its readings are kept")
    assert field.agent.process is not None
    assert field.agent.process.poll() is None
    renewing = field.command("identity", "renew")
    assert renewing.returncode == 12
    assert "the grace is 180 days; Enroll the device again" in renewing.stderr


def test_a_revoked_device_is_told_so(make: Callable[[str], Field]) -> None:
    field = make("gw-revoked")
    field.post.age(25 * DAY)
    before = field.post.serial
    field.post.revoke()
    field.agent.start()
    field.says("certificate.ends", "the certificate was revoked")
    assert not field.is_renewed(before)


@pytest.mark.parametrize(
    ("moment", "days", "renews"),
    [
        ("1970-01-02 00:00:00", 25, True),
        ("2099-01-01 00:00:00", 60, True),
        ("2099-01-01 00:00:00", 1, False),
    ],
)
def test_a_device_with_a_wrong_clock_renews_by_the_server_s(
    make: Callable[[str], Field], moment: str, days: int, renews: bool
) -> None:
    field = make(f"gw-{moment[:4]}-{days}")
    field.post.age(days * DAY)
    before = field.post.serial
    field.agent.start(**clock_at(moment))
    if renews:
        field.renews(before)
    field.is_heard()
    assert field.is_renewed(before) == renews
    assert field.post.recorded() == (["certificate.renew" + "_late" * (days > 30)] if renews else [])


def test_a_clock_that_is_weeks_ahead_asks_in_vain_once_and_goes_on(make: Callable[[str], Field]) -> None:
    field = make("gw-ahead")
    field.post.age(5 * DAY)
    before = field.post.serial
    field.agent.start(**clock_at((dt.datetime.now(dt.UTC) + 20 * DAY).strftime("%Y-%m-%d %H:%M:%S")))
    field.is_heard()
    wait_until(lambda: field.agent.waiting() == 0, "all is acknowledged")
    assert not field.is_renewed(before)
    assert field.post.recorded() == []


def test_a_clock_that_is_weeks_behind_is_not_believed_once_the_broker_refuses(
    make: Callable[[str], Field],
) -> None:
    field = make("gw-behind")
    field.post.age(40 * DAY)
    before = field.post.serial
    behind = Clock("0" * 16, wall_ns=lambda: time.time_ns() - 20 * 86_400 * 10**9)
    assert behind.state() is ClockState.TRUSTED
    health = HealthBoard(behind)
    renewal = Renewal(load(field.agent.config), behind, health, lambda: None)
    assert asyncio.run(renewal._look()) > 0
    assert field.post.serial == before
    health.raise_code("link.refused", "expired")
    asyncio.run(renewal._look())
    assert field.post.serial != before


def test_without_a_server_to_renew_at_it_says_so(make: Callable[[str], Field]) -> None:
    field = make("gw-nowhere")
    text = field.agent.config.read_text()
    assert "\n[server]\nurl = " in text
    start = text.index("[server]")
    end = text.index("\n", text.index("url = ", start))
    field.agent.config.write_text(text[:start] + text[end:])
    field.post.age(25 * DAY)
    field.agent.start()
    field.says("certificate.ends", "[server]")
    field.is_heard()
    found = {each["code"]: each for each in json.loads(field.command("doctor", "--json").stdout)}
    assert not found["renewal"]["ok"]
    assert "[server]" in found["renewal"]["next_step"]


def test_a_server_that_is_away_is_asked_again(make: Callable[[str], Field], server: ServerProcess) -> None:
    field = make("gw-patient")
    before = field.post.serial
    config = field.agent.config
    good = config.read_text()
    url = server.endpoints["device_url"]
    config.write_text(good.replace(f'[server]\nurl = "{url}"', '[server]\nurl = "https://localhost:9"'))
    field.post.age(25 * DAY)
    aged = field.post.serial
    assert aged != before
    field.agent.start()
    field.says("certificate.ends", "cannot be reached")
    assert field.agent.stop() == 0
    config.write_text(good)
    field.agent.start()
    field.renews(aged)


def test_a_technician_sees_and_renews_the_identity_beside_the_agent(make: Callable[[str], Field]) -> None:
    field = make("gw-site")
    field.agent.start()
    field.is_heard()
    before = field.post.serial
    shown = json.loads(field.command("identity", "--json").stdout)
    assert (shown["device"], shown["serial"], shown["problem"]) == ("gw-site", before, "")
    assert len(shown["issuers"]) == 2
    assert shown["renewed_at"] == field.server.endpoints["device_url"]
    begins, renewal, ends = (dt.datetime.fromisoformat(shown[key]) for key in ("begins", "renewal", "ends"))
    assert begins + (ends - begins) * 0.66 < renewal < begins + (ends - begins) * 0.76
    early = field.command("identity", "renew")
    assert early.returncode == 0, early.stderr
    assert "holds the certificate for fresh" in early.stdout
    assert field.post.serial == before
    field.post.age(40 * DAY)
    aged = field.post.serial
    late = field.command("identity", "renew", "--json")
    assert late.returncode == 0, late.stderr
    assert json.loads(late.stdout)["serial"] == field.post.serial != aged
    assert field.agent.log.count("connected to the broker") == 1
    table = field.command("identity").stdout
    assert "renewed" in table
    assert "Argan fleet root" in table


def test_a_session_outlives_the_certificate_that_began_it(server: ServerProcess, tmp_path: Path) -> None:
    """Why the agent does not reconnect for a new certificate: mosquitto looks at it when a session begins."""
    folder = tmp_path / "gw-short"
    identity = add(server, "gw-short", folder)
    post = DevicePost(server, folder)
    post.age(dt.timedelta(0), dt.timedelta(seconds=3))
    mine = Identity("gw-short", identity.certificate, identity.key, identity.ca)
    with connected(server.endpoints["mqtt_port"], mine) as device:
        ends = post.certificate.not_valid_after_utc.timestamp()
        wait_until(lambda: time.time() > ends + 1, "it has expired")
        device.publish(topic("gw-short", Channel.TELEMETRY), batch(1))

        def stored() -> bool:
            return bool(server.get("/v1/devices/gw-short/readings", metric="pressure")["items"])

        wait_until(stored, "what it published after the end is stored")


def test_two_roots_come_with_the_next_certificate_and_one_with_the_one_after(tmp_path: Path) -> None:
    """That broker and agents get along meanwhile is tried in test_authority_journey.py."""
    server = ServerProcess(tmp_path / "data")
    try:
        server.start()
        field = Field(server, tmp_path / "gw-roots")
        assert roots_of(field) == 1
        rollover.begin(server.data / "authority", None)
        assert field.command("identity", "renew").returncode == 0
        assert roots_of(field) == 2
        rollover.finish(server.data / "authority")
        assert field.command("identity", "renew").returncode == 0
        assert roots_of(field) == 1
        assert field.post.recorded() == ["certificate.renew"] * 2
        shown = json.loads(field.command("identity", "--json").stdout)
        assert len(shown["issuers"]) == 2
    finally:
        server.end()


def roots_of(field: Field) -> int:
    return len(x509.load_pem_x509_certificates((field.post.folder / "ca.pem").read_bytes()))
