"""Ctrl-C at any moment of the demonstration, and q, leave no process and no folder."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until

pytest.importorskip("wntr")

COMMAND = [sys.executable, "-m", "use_cases.water_network.demo"]


@contextmanager
def demo(temporary: Path, *options: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """The demonstration with ``temporary`` for its folder; whatever happens, none of it is left."""
    process = subprocess.Popen(
        (*COMMAND, *options),
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/sbin", "TMPDIR": str(temporary)},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the demonstration ended before it said {text!r}")


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that names ``folder`` in its command line."""
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(each.info["cmdline"] or [])
    ]


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("Starting the fleet server", signal.SIGINT),
        ("Holding the key ceremony", signal.SIGTERM),
        ("first reading of every agent", signal.SIGINT),
    ],
    ids=["server starts", "ceremony", "agents run"],
)
def test_a_stop_leaves_nothing(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    with demo(tmp_path, "--check") as process:
        read_until(process, moment)
        process.send_signal(number)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(30) == 130, rest
    assert not processes_of(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_demonstration_takes_its_processes_along(tmp_path: Path) -> None:
    with demo(tmp_path, "--check") as process:
        read_until(process, "first reading of every agent")
        assert processes_of(tmp_path)
        process.kill()
    wait_until(lambda: not processes_of(tmp_path), "no process is left", 30)


def test_q_ends_the_live_view_and_its_story(tmp_path: Path) -> None:
    """With a terminal before it, at which nobody is asked anything."""
    person, terminal = pty.openpty()
    with demo(tmp_path, stdin=terminal) as process:
        wait_until(
            # As they were when they were listed: another one may have ended since.
            lambda: any("conductor" in " ".join(each.info["cmdline"]) for each in processes_of(tmp_path)),
            "the story begins",
            90,
        )
        os.write(person, b"q")
        assert process.wait(40) == 0
    os.close(person)
    os.close(terminal)
    assert not processes_of(tmp_path)
    assert not list(tmp_path.iterdir())
