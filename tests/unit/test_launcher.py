"""Which software the launcher starts, what an end means, and that nothing keeps it from starting one."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edge_agent.launcher import __main__ as launching
from edge_agent.launcher import record
from edge_agent.launcher.decision import ATTEMPTS, IN_USE, SOON_S, STRIKES, End, ended, stopped, to_start
from edge_agent.launcher.record import FITTED, RESTART, Record, RecordUnreadable
from tests.support.waiting import wait_until

NEW, OLD = "a" * 64, "b" * 64
TRYING = Record(NEW, OLD, trying=True, deadline_s=60.0, expected=("link",))
COMMITTED = Record(NEW, OLD)
CRASH = End(1, 0.1)


@pytest.mark.parametrize(
    ("before", "whole", "current", "attempts", "reason"),
    [
        (Record(), {FITTED}, FITTED, 0, ""),
        (COMMITTED, {FITTED, NEW, OLD}, NEW, 0, ""),
        (TRYING, {FITTED, NEW, OLD}, NEW, 1, ""),
        (replace(TRYING, attempts=ATTEMPTS - 1), {FITTED, NEW, OLD}, NEW, ATTEMPTS, ""),
        (replace(TRYING, attempts=ATTEMPTS), {FITTED, NEW, OLD}, OLD, 0, "started 3 times"),
        (replace(TRYING, attempts=ATTEMPTS), {FITTED, NEW}, FITTED, 0, "files are gone"),
        (COMMITTED, {FITTED, OLD}, OLD, 0, "files are gone"),
        (COMMITTED, {FITTED}, FITTED, 0, "files are gone"),
        (TRYING, {FITTED, OLD}, OLD, 0, "files are gone"),
    ],
)  # fmt: skip
def test_what_is_started(before: Record, whole: set[str], current: str, attempts: int, reason: str) -> None:
    after = to_start(before, whole.__contains__)
    assert (after.current, after.attempts) == (current, attempts)
    assert reason in after.reason
    assert after.failed == (NEW if before.attempts == ATTEMPTS else "")


@pytest.mark.parametrize(
    ("before", "end", "strikes", "current", "failed"),
    [
        (TRYING, CRASH, 0, NEW, ""),
        (TRYING, End(-signal.SIGKILL, 0.1), 9, NEW, ""),
        (TRYING, End(-signal.SIGTERM, 60.0, overdue=True), 0, OLD, NEW),
        (TRYING, End(0, 60.0, overdue=True), 0, OLD, NEW),
        (TRYING, End(RESTART, 1.0), 0, NEW, ""),
        (COMMITTED, CRASH, STRIKES - 2, NEW, ""),
        (COMMITTED, CRASH, STRIKES - 1, OLD, NEW),
        (COMMITTED, End(-signal.SIGSEGV, 1.0), STRIKES - 1, OLD, NEW),
        (COMMITTED, End(127, 0.0), STRIKES - 1, OLD, NEW),
        (COMMITTED, End(3, 0.1), STRIKES + 9, NEW, ""),
        (COMMITTED, End(1, SOON_S + 1), STRIKES - 1, NEW, ""),
        (COMMITTED, End(RESTART, 0.1), STRIKES - 1, NEW, ""),
        (Record(), CRASH, STRIKES + 9, FITTED, ""),
    ],
)  # fmt: skip
def test_what_an_end_means(before: Record, end: End, strikes: int, current: str, failed: str) -> None:
    then = ended(before, end, strikes)
    assert (then.record.current, then.record.failed) == (current, failed)
    assert bool(then.record.reason) == bool(failed)


def test_deaths_in_a_row_make_it_wait_longer_and_a_good_run_ends_the_row() -> None:
    strikes, pauses = 0, []
    for _death in range(12):
        then = ended(Record(), CRASH, strikes)
        strikes = then.strikes
        pauses.append(then.pause_s)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, 60.0)
    assert ended(Record(), End(1, SOON_S), strikes).strikes == 0
    assert ended(Record(), End(RESTART, 0.1), strikes).pause_s == 0.0


def test_a_command_that_holds_the_data_folder_for_a_moment_costs_no_attempt_and_one_for_ever_does() -> None:
    begun, strikes = to_start(TRYING, {FITTED, NEW, OLD}.__contains__), 0
    assert ended(begun, End(IN_USE, 0.1), 0).record == TRYING
    for _start in range(STRIKES + ATTEMPTS):
        then = ended(begun, End(IN_USE, 0.1), strikes)
        begun, strikes = to_start(then.record, {FITTED, NEW, OLD}.__contains__), then.strikes
    assert begun.current == OLD, "a version that always says so is given up like any other"


def test_an_orderly_stop_is_no_attempt_that_failed() -> None:
    begun = to_start(TRYING, {FITTED, NEW}.__contains__)
    assert stopped(begun) == TRYING
    assert stopped(COMMITTED) == COMMITTED


def test_a_record_comes_back_as_it_was_written_with_what_a_newer_version_added(tmp_path: Path) -> None:
    assert record.read(tmp_path) == Record()
    for each in (TRYING, COMMITTED, TRYING.fallen("why"), replace(TRYING, others={"later": [1]})):
        record.write(tmp_path, each)
        assert record.read(tmp_path) == each
    record.write(tmp_path, record.read(tmp_path).fallen("why"))
    assert record.read(tmp_path).others == {"later": [1]}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff", b'{"format": 2, "state": "committed"}', b"\0" * 300],
)
def test_what_is_no_record_is_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / record.CURRENT).write_bytes(content)
    with pytest.raises(RecordUnreadable):
        record.read(tmp_path)


@pytest.mark.parametrize("deadline", ["Infinity", "NaN", "-1", "1e300", "9" * 400])
def test_a_deadline_that_no_timer_can_be_set_to_is_not_believed(tmp_path: Path, deadline: str) -> None:
    record.write(tmp_path, TRYING)
    file = tmp_path / record.CURRENT
    file.write_text(file.read_text(encoding="utf-8").replace("60.0", deadline), encoding="utf-8")
    with pytest.raises(RecordUnreadable):
        record.read(tmp_path)
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(RecordUnreadable):
        record.read(tmp_path)


def test_a_slot_is_named_by_a_digest_and_by_nothing_else(tmp_path: Path) -> None:
    record.write(tmp_path, replace(COMMITTED, current="../../bin"))
    with pytest.raises(RecordUnreadable):
        record.read(tmp_path)


class Bench:
    """A launcher as a real process over slots that are scripts; each start is a line in ``starts``."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "agent.toml"
        self.config.write_text('data = "data"\n')
        self.data = folder / "data"
        self.slots = self.data / record.FOLDER
        self.starts = folder / "starts"
        self.process: subprocess.Popen[bytes] | None = None

    def slot(self, name: str, script: str) -> None:
        """A slot that does ``script``; it holds the data folder as an agent does."""
        python = record.python_of(self.slots, name)
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho {name[:1]} $$ >> {self.starts}\n{script}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "edge_agent.launcher", "--config", str(self.config)]
        )

    def started(self) -> list[str]:
        return [line.split()[0] for line in self.lines()]

    def pid(self) -> int:
        return int(self.lines()[-1].split()[1])

    def lines(self) -> list[str]:
        return self.starts.read_text().splitlines() if self.starts.exists() else []

    def starting(self, *names: str) -> None:
        wait_until(lambda: self.started() == list(names), f"{names} are started", 30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    if bench.process is not None and bench.process.poll() is None:
        bench.process.kill()
        bench.process.wait(30)


STAYS = "exec sleep 600"


def test_what_does_not_come_up_is_left_after_three_starts(bench: Bench) -> None:
    bench.slot(NEW, "exit 1")
    bench.slot(OLD, STAYS)
    record.write(bench.slots, TRYING)
    bench.start()
    bench.starting("a", "a", "a", "b")
    standing = record.read(bench.slots)
    assert (standing.current, standing.trying, standing.failed) == (OLD, False, NEW)
    assert "started 3 times" in standing.reason
    bench.stop()


def test_what_never_says_that_it_is_well_is_ended_and_left(bench: Bench) -> None:
    bench.slot(NEW, STAYS)
    bench.slot(OLD, STAYS)
    record.write(bench.slots, replace(TRYING, deadline_s=0.5))
    bench.start()
    bench.starting("a", "b")
    standing = record.read(bench.slots)
    assert standing.failed == NEW
    assert "did not prove itself within" in standing.reason
    bench.stop()


def test_one_that_ignores_its_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_STOP_WITHIN_S", 0.2)
    with subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        launching._end(child, signal.SIGTERM)
        assert child.wait(30) == -signal.SIGKILL


def test_what_has_proved_itself_in_time_stays(bench: Bench) -> None:
    committed = bench.slots.parent / "committed"
    record.write(committed, TRYING.committed())
    bench.slot(NEW, f"mv {committed}/{record.CURRENT} {bench.slots}/{record.CURRENT}\n{STAYS}")
    record.write(bench.slots, replace(TRYING, deadline_s=1.0))
    bench.start()
    bench.starting("a")
    wait_until(lambda: not record.read(bench.slots).trying)
    first = bench.pid()
    os.kill(first, signal.SIGKILL)
    bench.starting("a", "a")
    assert record.read(bench.slots).current == NEW
    bench.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_and_costs_no_attempt(bench: Bench, number: int) -> None:
    bench.slot(NEW, "trap 'exit 0' TERM INT\nwhile :; do sleep 0.05; done")
    record.write(bench.slots, TRYING)
    bench.start()
    bench.starting("a")
    assert bench.stop(number) == 0
    assert not psutil.pid_exists(bench.pid())
    assert record.read(bench.slots) == TRYING


def test_a_launcher_that_is_killed_takes_its_agent_with_it_and_the_next_goes_on(bench: Bench) -> None:
    bench.slot(NEW, STAYS)
    record.write(bench.slots, COMMITTED)
    bench.start()
    bench.starting("a")
    assert bench.process
    bench.process.kill()
    bench.process.wait(30)
    wait_until(lambda: not psutil.pid_exists(bench.pid()), "the agent ends too")
    bench.start()
    bench.starting("a", "a")
    bench.stop()


def test_two_launchers_on_one_data_folder_do_not_fight(bench: Bench) -> None:
    bench.slot(NEW, STAYS)
    record.write(bench.slots, COMMITTED)
    bench.start()
    bench.starting("a")
    command = [sys.executable, "-I", "-m", "edge_agent.launcher", "--config", str(bench.config)]
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert second.returncode == 6
    assert "another launcher runs" in second.stderr
    assert bench.started() == ["a"]
    bench.stop()


def test_a_record_that_is_unreadable_is_set_aside_for_the_base_installation(bench: Bench) -> None:
    bench.slots.mkdir(parents=True)
    (bench.slots / record.CURRENT).write_bytes(b"\0" * 200)
    bench.start()
    aside = bench.slots / f"{record.CURRENT}.unreadable"
    wait_until(lambda: aside.exists() and record.read(bench.slots).reason, "the record is new", 30)
    assert record.read(bench.slots).current == FITTED
    assert bench.stop() in {0, 3}


@pytest.mark.parametrize("content", ["data = 3\n", "nothing\n", 'device = "x"\n'])
def test_a_configuration_that_cannot_be_used_is_told(tmp_path: Path, content: str) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(content)
    command = [sys.executable, "-m", "edge_agent", "launch", "--config", str(config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "correct it" in done.stderr


def test_the_launcher_needs_nothing_but_the_standard_library() -> None:
    """It is the one part that no update mends."""
    code = "import sys; import edge_agent.launcher.__main__; print(*{n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    others = set(done.stdout.split()) - sys.stdlib_module_names
    assert {name for name in others if not name.startswith(("_", "sitecustomize"))} <= {
        "edge_agent",
        "fleet_protocol",
    }


def test_a_folder_that_cannot_be_written_does_not_keep_an_agent_from_starting(
    tmp_path: Path,
) -> None:
    """The attempts are then counted in mind."""
    bench = Bench(tmp_path)
    bench.slot(NEW, "exit 1")
    bench.slot(OLD, STAYS)
    record.write(bench.slots, TRYING)
    # A folder in the draft's place: nothing can be written there, not even by root.
    (bench.slots / f"{record.CURRENT}.draft").mkdir()
    bench.start()
    try:
        bench.starting("a", "a", "a", "b")
        assert record.read(bench.slots) == TRYING
    finally:
        assert bench.process
        bench.process.kill()
        bench.process.wait(30)
