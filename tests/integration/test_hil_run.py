"""Scenarios run as a person runs them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.waiting import wait_until

COMMAND = (sys.executable, "-m", "hil", "run")


def ended(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*COMMAND, *arguments, "--out", str(out)), capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("killed-again-and-again", "--rig", "simulated"),
        pytest.param(
            ("bad-link",), marks=pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
        ),
    ],
)
def test_a_scenario_passes_and_is_reported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = ended(*arguments, out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 0 failed, 0 skipped" in done.stdout
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("failures") == "0"
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_a_promise_that_is_broken_fails_the_run(tmp_path: Path) -> None:
    """The meter's readings are held against rows of which one is taken away."""
    script = (
        "import sys; from hil import sights; from hil.__main__ import main;"
        "whole = sights._rows;"
        "sights._rows = lambda *a: [row for row in whole(*a) if row['value'] != 5];"
        "sys.argv[1:] = ['run', 'killed-again-and-again', '--rig', 'simulated']; sys.exit(main())"
    )
    done = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "lost" in done.stdout


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        run = subprocess.Popen(
            (*COMMAND, "stuck-sensor", "--rig", "simulated"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "sensor gw-1 stuck" in log.read_text(), "the scenario is under way", 60)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert children
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
    finally:
        run.kill()
        run.wait()
    wait_until(
        lambda: not any(Path(f"/proc/{child}").exists() for child in children), "every process is gone"
    )


def test_an_unknown_scenario_is_a_usage_error(tmp_path: Path) -> None:
    done = ended("nothing", out=tmp_path)
    assert done.returncode == 2
    assert "there are: " in done.stderr
