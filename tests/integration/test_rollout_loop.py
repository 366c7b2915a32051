"""The rollouts process: hints over a real broker, SIGKILL at any moment, and a whole server with devices."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.topics import Channel, topic
from fleet_server.database.engine import open_engine
from fleet_server.database.models import SentHint, Twin, TwinHalf
from tests.support.fleet_broker import connected
from tests.support.fleet_server import ServerProcess, add, approve_waiting, fleet
from tests.support.rollout_site import FakeDevice, RolloutSite, next_hint, rollout_site
from tests.support.rollouts import (
    add_fleet,
    assigned,
    begin,
    digest,
    give,
    page,
    publish,
    states_of,
    tell,
    update,
    waves_of,
)
from tests.support.waiting import wait_until

NEW = digest("leak", 2)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[RolloutSite]:
    folder = tmp_path / "data"
    folder.mkdir()
    with rollout_site(folder, database_url) as site:
        publish(site.engine, 1, 2, 3)
        yield site


def versions(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        rows = session.exec(select(Twin).where(Twin.half == TwinHalf.DESIRED))
        return {row.device: row.version for row in rows}


def sent(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        return {row.device: row.version for row in session.exec(select(SentHint))}


def test_a_changed_assignment_becomes_a_retained_hint(site: RolloutSite) -> None:
    (name,) = add_fleet(site.engine, 1)
    site.start_loop()
    identity = site.broker.device(name)
    with connected(site.broker.port, identity) as device:
        device.subscribe(topic(name, Channel.HINT))
        begin(site.engine)
        assert next_hint(device).version == 1
    with connected(site.broker.port, identity) as late:
        late.subscribe(topic(name, Channel.HINT))
        assert next_hint(late).version == 1


def test_hints_wait_for_a_broker_and_none_is_forgotten(site: RolloutSite) -> None:
    names = add_fleet(site.engine, 3)
    site.start_loop()
    site.wait_for_beat()
    assert site.broker.process is not None
    site.broker.process.kill()
    site.broker.process.wait(10)
    begin(site.engine)
    wait_until(lambda: len(versions(site.engine)) == 3, "assignments do not wait for the broker")
    site.kill_loop()
    site.start_loop()
    assert sent(site.engine) == {}
    site.broker.start()
    for name in names:
        with connected(site.broker.port, site.broker.device(name)) as device:
            device.subscribe(topic(name, Channel.HINT))
            assert next_hint(device).version == 1
    wait_until(lambda: sent(site.engine) == dict.fromkeys(names, 1), "taken hints are noted")


def test_a_killed_broker_that_forgot_its_last_hints_gets_them_again(site: RolloutSite) -> None:
    (name,) = add_fleet(site.engine, 1)
    site.start_loop()
    begin(site.engine)
    wait_until(lambda: sent(site.engine) == {name: 1}, "the hint is out")
    assert site.broker.process is not None
    site.broker.process.kill()
    site.broker.process.wait(10)
    for stored in (site.broker.config.broker / "store").iterdir():
        stored.unlink()
    site.broker.start()
    with connected(site.broker.port, site.broker.device(name)) as device:
        device.subscribe(topic(name, Channel.HINT))
        assert next_hint(device).version == 1


@pytest.mark.slow
def test_killed_over_and_over_it_neither_skips_nor_repeats_a_wave(site: RolloutSite) -> None:
    names = add_fleet(site.engine, 12)
    give(site.engine, names, 1)
    identity = begin(site.engine, "2", "4", "8", "100%")
    moments = iter([0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3] * 5)
    while page(site.engine, identity).rollout.state == "running":
        site.start_loop()
        site.wait_for_beat()
        time.sleep(next(moments))  # not a wait for anything: the moment of the kill
        site.kill_loop()
        for device, state in states_of(site.engine, identity).items():
            if state == "assigned":
                tell(site.engine, device, update(2, "committed", installed=2))
        open_waves = [wave for wave in page(site.engine, identity).waves if wave.state == "open"]
        assert len(open_waves) <= 1
    assert set(states_of(site.engine, identity).values()) == {"done"}
    assert versions(site.engine) == dict.fromkeys(names, 2), "each was assigned once"
    starts = [wave.started_ms for wave in page(site.engine, identity).waves]
    assert starts == sorted(starts, key=lambda ms: ms or 0)


DIES = """
import os, signal, sys
from sqlmodel import Session
from fleet_server.database.engine import open_engine, writing
from fleet_server.updates import assignments, rollouts
url, identity, point = sys.argv[1:]
def die(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)
engine = open_engine(url)
if point == "before the assignments":
    rollouts.assign = die
elif point == "between assignment and desired half":
    assignments._refresh = die
with writing(engine) as session:
    rollouts.advance(session, rollouts.lock(session, "default", identity), 5)
    if point == "before the commit":
        session.flush()
        die()
die()
"""


@pytest.mark.parametrize(
    ("point", "has_happened"),
    [
        ("before the assignments", False),
        ("between assignment and desired half", False),
        ("before the commit", False),
        ("after the commit", True),
    ],
)
def test_a_step_that_is_killed_has_happened_whole_or_not_at_all(
    engine: Engine, database_url: str, point: str, has_happened: bool
) -> None:
    names = add_fleet(engine, 4)
    publish(engine, 2)
    identity = begin(engine, "2", "100%")
    died = subprocess.run([sys.executable, "-c", DIES, database_url, identity, point], check=False)
    assert died.returncode == -9
    wave = set(waves_of(engine, identity)[0])
    expected = wave if has_happened else set()
    assert set(assigned(engine)) == set(versions(engine)) == expected
    assert {name for name, state in states_of(engine, identity).items() if state == "assigned"} == expected
    assert page(engine, identity).waves[0].state == ("open" if has_happened else "waiting")
    assert wave < set(names)


def test_it_outlives_a_database_that_is_away(site: RolloutSite, request: pytest.FixtureRequest) -> None:
    if site.engine.dialect.name != "postgresql":
        pytest.skip("SQLite is never away")
    server = request.getfixturevalue("postgres")
    add_fleet(site.engine, 2)
    site.start_loop()
    site.wait_for_beat()
    server.stop()
    wait_until(lambda: "the database failed, rollouts wait for it" in site.log, "it says so")
    server.start()
    identity = begin(site.engine)
    wait_until(lambda: page(site.engine, identity).rollout.counts["assigned"] == 2, "it goes on")
    assert site.process is not None
    assert site.process.poll() is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def database(server: ServerProcess) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{server.data / 'fleet.db'}")
    publish(engine, 1, 2, 3, 4)
    yield engine
    engine.dispose()


def test_good_devices_take_a_release_in_waves_while_the_loop_is_killed(
    server: ServerProcess, database: Engine, tmp_path: Path
) -> None:
    names = [f"good-{number}" for number in range(4)]
    with ExitStack() as devices:
        enter(devices, server, database, tmp_path, dict.fromkeys(names, "good"))
        assert "4 devices" in run(server, "group", "set", "good", "id=good-*")
        text = run(
            server, "rollout", "start", "--group", "good", "--model", "leak", "--release", "2",
            "--wave", "1,50%,100%", "--soak", "1s", "--reason", "a better model", "--json",
        )  # fmt: skip
        identity = begun(server, text)
        watching = subprocess.Popen(
            [sys.executable, "-m", "fleet_console", "rollout", "watch", identity, "--data", str(server.data)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        server.children()["rollouts"].kill()
        out, _none = watching.communicate(timeout=90)
    assert watching.returncode == 0
    assert out.splitlines()[-1].startswith(f"{identity}: model leak release 2 to good, done: 4 done")
    assert all(f"{name}: done" in out for name in names)
    waves = server.get(f"/v1/rollouts/{identity}")["waves"]
    assert [len(wave["devices"]) for wave in waves] == [1, 1, 2]
    for before, after in pairwise(waves):
        assert after["started_ms"] >= before["ended_ms"] + 1_000
    assert server.get("/v1/devices/good-0")["desired"]["assignments"][0]["release"] == 2
    assert server.codes() == set()


def test_a_bad_release_stops_in_its_first_wave_and_is_not_offered_again(
    server: ServerProcess, database: Engine, tmp_path: Path
) -> None:
    names = [f"bad-{number}" for number in range(3)]
    with ExitStack() as devices:
        enter(devices, server, database, tmp_path, dict.fromkeys(names, "bad"))
        run(server, "group", "set", "bad", "id=bad-*")
        start = ("rollout", "start", "--group", "bad", "--model", "leak", "--wave", "1,100%", "--reason", "x",
                 "--soak", "0s", "--json", "--release")  # fmt: skip
        identity = begun(server, run(server, *start, "3"))
        watched = fleet("rollout", "watch", identity, "--json", "--data", server.data)
        assert watched.returncode == 1
        last = json.loads(watched.stdout.splitlines()[-1])
        assert last["rollout"]["detail"] == "1 failed, at most 0 may"
        assert last["rollout"]["counts"] | {"failed": 1, "withdrawn": 2} == last["rollout"]["counts"]
        assert set(assigned(database)) & set(names) == set()
        shown = run(server, "rollout", "show", identity)
        assert "rolled_back" in shown

        again = begun(server, run(server, *start, "3"))
        fleet("rollout", "watch", again, "--data", server.data)
        burnt = next(one.id for wave in page(database, identity).waves for one in wave.devices
                     if one.state == "failed")  # fmt: skip
        assert states_of(database, again)[burnt] in {"failed", "withdrawn"}
        assert burnt not in assigned(database)


def test_an_abort_wants_to_be_confirmed_and_spares_who_has_not_begun(
    server: ServerProcess, database: Engine, tmp_path: Path
) -> None:
    with ExitStack() as devices:
        enter(devices, server, database, tmp_path, {"slow-0": "stuck"})
        add(server, "slow-1", tmp_path / "slow-1")
        run(server, "group", "set", "slow", "id=slow-*")
        text = run(server, "rollout", "start", "--group", "slow", "--model", "leak", "--release", "4",
                   "--wave", "100%", "--reason", "x", "--json")  # fmt: skip
        identity = begun(server, text)
        wait_until(lambda: "testing" in run(server, "rollout", "show", identity), "the device has begun")
        refused = fleet("rollout", "abort", identity, "--data", server.data)
        assert refused.returncode == 1
        assert "nothing was changed" in refused.stderr
        assert "It is paused" in run(server, "rollout", "pause", identity)
        assert "rollout.resume, proposed" in run(server, "rollout", "resume", identity, "--reason", "x")
        assert len(approve_waiting(server.data)) == 1
        assert "running" in run(server, "rollout", "show", identity)
        confirmed = subprocess.run(
            [sys.executable, "-m", "fleet_console", "rollout", "abort", identity, "--data", str(server.data)],
            input=f"{identity}\n", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert confirmed.returncode == 0, confirmed.stderr
    assert states_of(database, identity) == {"slow-0": "assigned", "slow-1": "withdrawn"}
    assert {name for name in assigned(database) if name.startswith("slow")} == {"slow-0"}
    assert "aborted" in run(server, "rollout", "list")


def test_a_refused_start_says_why_and_what_to_do(server: ServerProcess, database: Engine) -> None:
    assert_refused(
        server, ("group", "set", "x", "site=a", "color=red"), "at character 8: devices have no field"
    )
    run(server, "group", "set", "empty", "id=nobody")
    start = ("rollout", "start", "--reason", "x", "--release", "2", "--group")
    assert_refused(server, (*start, "empty", "--model", "leak"), "the group holds no devices")
    assert_refused(server, (*start, "nothing", "--model", "leak"), "no group 'nothing'")
    assert_refused(server, (*start, "empty", "--policy", "leak"), "no release 2 of policy 'leak'")
    assert_refused(server, (*start, "empty"), "Give one of --model, --policy, --agent and --os", 2)
    assert_refused(server, (*start, "empty", "--model", "leak", "--soak", "1"), "--soak '1' is no time", 2)
    assert_refused(server, (*start, "empty", "--model", "leak", "--wave", "50%,10%"), "waves must grow")
    assert_refused(server, ("rollout", "watch", "nothing"), "no rollout 'nothing'")


def assert_refused(server: ServerProcess, command: tuple[str, ...], complaint: str, code: int = 1) -> None:
    done = fleet(*command, "--data", server.data)
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint in done.stderr


def begun(server: ServerProcess, said: str) -> str:
    """The rollout that was asked for, once somebody else has approved it."""
    identity = str(json.loads(said)["proposal"]["id"])
    assert approve_waiting(server.data) == [identity]
    return identity


def run(server: ServerProcess, *command: str) -> str:
    done = fleet(*command, "--data", server.data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def enter(
    stack: ExitStack, server: ServerProcess, database: Engine, folder: Path, tempers: dict[str, str]
) -> None:
    """Devices that are added to the server and live until the stack ends."""

    def wish(name: str) -> int:
        page = server.get(f"/v1/devices/{name}")
        return max((one["release"] for one in page["desired"]["assignments"]), default=0)

    for name, temper in tempers.items():
        identity = add(server, name, folder / name)
        stack.enter_context(FakeDevice(identity, server.endpoints["mqtt_port"], wish, temper))
        wait_until(lambda name=name: server.get(f"/v1/devices/{name}")["reported"], f"{name} reports")
