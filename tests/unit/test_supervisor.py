"""The server's supervisor: what cannot be started again waits, logs stay bounded."""

import signal
from pathlib import Path

import pytest

from fleet_server import supervisor
from fleet_server.supervisor import Program, Supervisor


def script(folder: Path) -> Path:
    path = folder / "program"
    path.write_text("#!/bin/sh\nexec sleep 1000\n")
    path.chmod(0o755)
    return path


def test_a_program_that_is_away_for_a_moment_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script(tmp_path)
    with Supervisor() as running:
        running.start(Program("fragile", (str(path),), tmp_path / "log"))
        (child,) = running._children
        child.process.kill()
        (died,) = running._wait(10.0)
        running._schedule(died)
        path.unlink()
        child.restart_at = 0.0
        running._restart_due()
        assert "fragile cannot be started" in capsys.readouterr().err
        assert child.restart_at > 0.0
        script(tmp_path)
        child.restart_at = 0.0
        running._restart_due()
        assert child.process.poll() is None
    assert child.process.returncode == -signal.SIGTERM


def test_a_log_that_grew_is_set_aside_while_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before, and long enough\n")
        supervisor._bound(log)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (tmp_path / "log.1").read_bytes() == b"before, and long enough\n"
