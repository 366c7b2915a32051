"""The doctor on this machine: real disk, real broker, real keys, and what it says when they fail."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import Config, load
from edge_agent.service.doctor import Finding, findings
from edge_agent.timesync import is_synchronized
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import DAY, TestAuthority
from tests.support.broker import TestBroker
from tests.support.disk import fill
from tests.support.drafts import HandClock
from tests.support.waiting import free_port, wait_until


@pytest.fixture
def agent(tmp_path: Path, authority: TestAuthority, broker: TestBroker) -> Iterator[AgentProcess]:
    """An agent that is configured and does not run; its files are its own."""
    issued = authority.issue("gw-70", ends=90 * DAY, folder=tmp_path / "tls")
    section = replay_section(recording(tmp_path / "flow.csv", 3))
    section += '[server]\nurl = "https://fleet.example:8443"\n'
    agent = AgentProcess(tmp_path / "gw-70", issued, broker.port, section)
    yield agent
    if agent.process is not None:
        agent.kill()


def found(config: Config) -> dict[str, list[Finding]]:
    by_code: dict[str, list[Finding]] = {}
    for finding in findings(config):
        by_code.setdefault(finding.code, []).append(finding)
        assert finding.ok == (not finding.next_step)
    return by_code


def only(config: Config, code: str) -> Finding:
    (finding,) = found(config)[code]
    return finding


def ill(config: Config) -> set[str]:
    return {finding.code for finding in findings(config) if not finding.ok}


def doctor(file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge_agent", "doctor", "--config", str(file), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_where_all_is_well_it_says_so(agent: AgentProcess) -> None:
    done = doctor(agent.config)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("\nNothing is wrong.\n")
    assert "→" not in done.stdout
    lines = [line.split()[:2] for line in done.stdout.splitlines()[:-2]]
    assert lines == [
        ["ok", code]
        for code in (
            *("profile", "machine", "memory", "disk", "commit", "runtime", "clock", "key", "certificate"),
            *("renewal", "broker", "sensors"),
        )
    ]
    assert not agent.data.exists()


def test_as_json_it_is_a_list_of_findings(agent: AgentProcess) -> None:
    done = doctor(agent.config, "--json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout, type=list[Finding]) == [
        msgspec.convert(each, Finding) for each in json.loads(done.stdout)
    ]
    assert set(json.loads(done.stdout)[0]) == {"code", "ok", "text", "next_step"}


def test_it_does_not_disturb_an_agent_that_runs(agent: AgentProcess) -> None:
    agent.start()
    wait_until(lambda: "connected to the broker" in agent.log, "the agent is connected")
    assert ill(load(agent.config)) == set()
    assert agent.log.count("connected to the broker") == 1
    assert agent.process is not None
    assert agent.process.poll() is None


def test_several_things_at_once_are_all_said(agent: AgentProcess, tmp_path: Path) -> None:
    text = agent.config.read_text().replace("flow.csv", "gone.csv").replace('"simulated"', '"pi-9"')
    agent.config.write_text(text + '[[models]]\nfolder = "none"\n')
    load(agent.config).broker.key.chmod(0o640)
    done = doctor(agent.config)
    assert done.returncode == 1
    bad = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("BAD")]
    assert bad == ["profile", "key", "certificate", "broker", "sensors", "model"]
    assert "there are: generic, " in done.stdout
    assert "→ Run: chmod 600" in done.stdout
    assert "6 to mend." in done.stdout
    assert "PRIVATE" not in done.stdout


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_configuration_that_cannot_be_read_is_a_finding(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("device = ")
    done = doctor(file, *options)
    assert (done.returncode, done.stderr) == (1, "")
    assert "no TOML" in done.stdout
    assert "Correct this line." in done.stdout


def test_an_agent_that_saw_the_clock_being_set_may_say_so(agent: AgentProcess) -> None:
    config = msgspec.structs.replace(load(agent.config), profile="raspberry-pi-5")
    clock = HandClock()
    assert [each.ok for each in findings(config, clock) if each.code == "clock"] == [True]
    assert [each.ok for each in findings(config) if each.code == "clock"] == [is_synchronized()]


class TestReachingTheBroker:
    def test_one_that_is_down(self, agent: AgentProcess, broker: TestBroker) -> None:
        broker.stop()
        finding = only(load(agent.config), "broker")
        assert not finding.ok
        assert "Connection refused" in finding.text
        assert "firewall" in finding.next_step

    def test_one_that_never_answers(self, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge_agent.service.probes._CONNECT_S", 0.3)
        with silent() as port:
            assert "no answer within 0.3 s" in only(at_port(agent, port), "broker").text

    def test_one_that_speaks_no_tls(self, agent: AgentProcess) -> None:
        with speaking(b"220 mail.example ESMTP\r\n") as port:
            assert not only(at_port(agent, port), "broker").ok

    def test_a_name_that_does_not_resolve(self, agent: AgentProcess) -> None:
        text = agent.config.read_text().replace('host = "127.0.0.1"', 'host = "broker.invalid"')
        agent.config.write_text(text)
        assert "broker.invalid:" in only(load(agent.config), "broker").text

    def test_one_of_another_fleet(
        self, agent: AgentProcess, tmp_path: Path, authority: TestAuthority
    ) -> None:
        foreign = TestAuthority(tmp_path / "foreign", "another fleet")
        other = TestBroker(tmp_path / "other", authority, foreign.issue("localhost"))
        other.start()
        try:
            assert "its certificate is not accepted" in only(at_port(agent, other.port), "broker").text
        finally:
            other.stop()

    def test_one_that_refuses_this_device(self, tmp_path: Path) -> None:
        authority = TestAuthority(tmp_path / "own")
        revoked = authority.issue("gw-71")
        authority.revoke(revoked)
        broker = TestBroker(tmp_path / "strict", authority)
        broker.start()
        agent = AgentProcess(tmp_path / "gw-71", revoked, broker.port, "")
        try:
            finding = only(load(agent.config), "broker")
        finally:
            broker.stop()
        assert not finding.ok
        assert "does not accept this device" in finding.text


class TestIdentity:
    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
    def test_a_key_that_others_can_touch(self, agent: AgentProcess, mode: int) -> None:
        load(agent.config).broker.key.chmod(mode)
        by_code = found(load(agent.config))
        assert "chmod 600" in by_code["key"][0].next_step
        assert not by_code["certificate"][0].ok
        assert not by_code["broker"][0].ok
        assert "takes connections" in by_code["broker"][0].text

    def test_a_key_that_is_not_there(self, agent: AgentProcess) -> None:
        load(agent.config).broker.key.unlink()
        assert "No such file" in only(load(agent.config), "key").text

    @pytest.mark.parametrize(
        ("ends", "ok", "said"),
        [(31 * DAY, True, "lasts 31 more days"), (DAY / 4, False, "0 more"), (-DAY, False, "expired on")],
    )
    def test_days_left(self, agent: AgentProcess, tmp_path: Path, ends: object, ok: bool, said: str) -> None:
        authority = TestAuthority(tmp_path / "own")
        issued = authority.issue("gw-72", begins=-3 * DAY, ends=ends)  # type: ignore[arg-type]
        finding = only(load(AgentProcess(tmp_path / "gw-72", issued, 1, "").config), "certificate")
        assert (finding.ok, said in finding.text) == (ok, True), finding

    def test_a_certificate_of_another_device(self, agent: AgentProcess) -> None:
        text = agent.config.read_text().replace('device = "gw-70"', 'device = "gw-79"')
        agent.config.write_text(text)
        finding = only(load(agent.config), "certificate")
        assert "is for gw-70, not for gw-79" in finding.text
        assert "Correct 'device'" in finding.next_step


class TestDisk:
    def test_a_small_one_has_no_room_for_the_quota(self, agent: AgentProcess, small_disk: Path) -> None:
        config = on_disk(agent, small_disk)
        assert ill(config) == {"disk"}
        assert "lower 'max_bytes'" in only(config, "disk").next_step

    def test_a_full_one_cannot_commit(self, agent: AgentProcess, small_disk: Path) -> None:
        fill(small_disk / "filler")
        config = on_disk(agent, small_disk)
        assert ill(config) == {"disk", "commit"}
        assert "No space left on device" in only(config, "commit").text
        assert list(small_disk.iterdir()) == [small_disk / "filler"]

    def test_a_place_where_no_folder_can_be(self, agent: AgentProcess) -> None:
        config = on_disk(agent, Path("/proc/argan"))
        assert "commit" in ill(config)


class TestModels:
    def test_a_runtime_that_is_broken_and_one_that_is_missing(
        self, agent: AgentProcess, tmp_path: Path
    ) -> None:
        """A package of the runtime's name that cannot be imported, as a half-installed one."""
        broken = tmp_path / "broken" / "tflite_runtime"
        broken.mkdir(parents=True)
        (broken / "__init__.py").write_text("raise ImportError('libtflite.so: not found')\n")
        agent.config.write_text(agent.config.read_text().replace('"simulated"', '"tflite-64"'))
        program = (
            "import os, sys; from pathlib import Path\n"
            "from edge_agent.config import load\n"
            "from edge_agent.service.doctor import findings\n"
            "for each in findings(load(Path(sys.argv[1]))):\n"
            "    print(each.code, each.ok, each.text, each.next_step, sep='|')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, agent.config],
            env={"PYTHONPATH": f"{broken.parent}:{Path.cwd()}"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("runtime")]
        assert lines == [
            "runtime|False|tflite does not import: libtflite.so: not found|Reinstall 'argan[tflite]'.",
            "runtime|True|none is installed, and no model asks for one|",
        ]

    def test_a_model_that_answers_and_one_that_is_spoiled(self, agent: AgentProcess, tmp_path: Path) -> None:
        pytest.importorskip("ai_edge_litert")
        from tests.support.models import autoencoder

        for name in ("good", "spoiled"):
            (tmp_path / name).mkdir()
            autoencoder(tmp_path / name)
        (tmp_path / "spoiled" / "model.tflite").write_bytes(b"spoiled")
        sections = "".join(f'[[models]]\nfolder = "{tmp_path / name}"\n' for name in ("good", "spoiled"))
        agent.config.write_text(agent.config.read_text() + sections)
        by_code = found(load(agent.config))
        good, spoiled = by_code["model"]
        assert (good.ok, spoiled.ok) == (True, False)
        assert "model.tflite" in spoiled.text
        assert by_code["runtime"][-1].ok


def on_disk(agent: AgentProcess, folder: Path) -> Config:
    return msgspec.structs.replace(load(agent.config), data=folder / "data")


def at_port(agent: AgentProcess, port: int) -> Config:
    config = load(agent.config)
    return msgspec.structs.replace(config, broker=msgspec.structs.replace(config.broker, port=port))


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def speaking(words: bytes) -> Iterator[int]:
    """A port that greets one caller and hangs up."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.settimeout(10)

        def greet() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as caller:
                caller.sendall(words)
                caller.recv(1 << 16)

        thread = threading.Thread(target=greet)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
