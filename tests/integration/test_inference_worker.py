"""A worker that is killed, hangs, starves or is orphaned: the agent goes on, and the next answer is right."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import errors
from edge_agent.inference import process
from edge_agent.inference.process import Worker
from edge_agent.inference.session import Session, open_session
from edge_agent.pipeline.pipeline import Model, Pipeline
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.service.health import HealthBoard
from fleet_protocol import manifest as mf
from fleet_protocol import messages as ms
from tests.support import models

NEXT_ANSWER_S = 5.0
"""Far above what it takes (see benchmarks/); only a worker that does not come back reaches it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.autoencoder(tmp_path / "autoencoder")


@pytest.fixture
def worker() -> Iterator[Worker]:
    with closing(Worker()) as worker:
        yield worker


@pytest.fixture
def session(folder: Path, worker: Worker) -> Iterator[Session]:
    with closing(open_session(folder, worker=worker, runtime=mf.Runtime.LITERT)) as session:
        yield session


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except errors.InferenceError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, caught


def until_stopped(pid: int) -> None:
    while (
        " (python" in (line := Path(f"/proc/{pid}/stat").read_text())
        and line.rsplit(")", 1)[1].split()[0] != "T"
    ):
        time.sleep(0.001)


@pytest.mark.parametrize(
    "deadly", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda each: each.name
)
def test_killed_in_the_middle_of_a_call(
    session: Session, worker: Worker, folder: Path, deadly: signal.Signals
) -> None:
    windows = models.golden_inputs(folder)
    before = [models.ask(session, window) for window in windows]
    pid = worker.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    until_stopped(pid)
    asking, caught = in_background(lambda: models.ask(session, windows[0]))
    os.kill(pid, deadly)
    os.kill(pid, signal.SIGCONT)
    asking.join()
    assert [type(each) for each in caught] == [errors.WorkerCrashed]
    assert deadly.name in str(caught[0])
    died = time.monotonic()
    assert [models.ask(session, window) for window in windows] == before
    assert time.monotonic() - died < NEXT_ANSWER_S
    assert worker.pid != pid


def test_killed_between_calls(session: Session, worker: Worker, folder: Path) -> None:
    window = models.golden_inputs(folder)[0]
    before = models.ask(session, window)
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(errors.WorkerCrashed, match="SIGKILL"):
        models.ask(session, window)
    assert models.ask(session, window) == before


def test_every_model_of_a_shared_worker_comes_back(
    session: Session, worker: Worker, folder: Path, tmp_path: Path
) -> None:
    second = open_session(models.wake_word(tmp_path / "wake", models.WAKE_WORDS[0]), worker=worker)
    window = models.golden_inputs(folder)[0]
    before = models.ask(session, window)
    os.kill(worker.pid or 0, signal.SIGSEGV)
    with pytest.raises(errors.WorkerCrashed):
        models.ask(second, models.golden_inputs(tmp_path / "wake")[0])
    assert models.ask(session, window) == before
    assert models.ask(second, models.golden_inputs(tmp_path / "wake")[0])
    second.close()


def test_a_worker_that_hangs_is_stopped(
    session: Session, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = models.golden_inputs(folder)[0]
    before, pid = models.ask(session, window), worker.pid
    monkeypatch.setattr(process, "CALL_S", 0.2)
    os.kill(pid or 0, signal.SIGSTOP)
    with pytest.raises(errors.WorkerCrashed, match="hung"):
        models.ask(session, window)
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)
    monkeypatch.setattr(process, "CALL_S", NEXT_ANSWER_S)
    assert models.ask(session, window) == before


def test_a_call_waits_only_its_time_for_a_worker_that_loads(
    session: Session, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = models.golden_inputs(folder)[0]
    monkeypatch.setattr(process, "CALL_S", 0.01)
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(errors.WorkerCrashed, match="SIGKILL"):
        models.ask(session, window)
    successor = worker.pid
    with pytest.raises(errors.WorkerCrashed, match="still starting"):
        models.ask(session, window)
    monkeypatch.setattr(process, "CALL_S", NEXT_ANSWER_S)
    assert models.ask(session, window)
    assert worker.pid == successor


def test_a_worker_that_keeps_dying_rests(
    session: Session, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = models.golden_inputs(folder)[0]
    for _crash in range(process.RESTARTS + 1):
        os.kill(worker.pid or 0, signal.SIGKILL)
        with pytest.raises(errors.WorkerCrashed, match="SIGKILL"):
            models.ask(session, window)
    assert worker.pid is None
    with pytest.raises(errors.WorkerCrashed, match="rests"):
        models.ask(session, window)
    monkeypatch.setattr(process, "RESTART_WINDOW_S", 0.0)
    assert models.ask(session, window)[0] == "normal"


def test_a_model_that_changed_on_disk_is_refused_after_a_restart(
    session: Session, worker: Worker, folder: Path
) -> None:
    window = models.golden_inputs(folder)[0]
    (folder / "model.tflite").write_bytes(b"something else")
    assert models.ask(session, window), "what is loaded stays loaded"
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(errors.WorkerCrashed):
        models.ask(session, window)
    with pytest.raises(errors.ModelRefused, match="not the file that the manifest names"):
        models.ask(session, window)


def test_loading_bytes_that_kill_the_runtime(
    worker: Worker, session: Session, folder: Path, tmp_path: Path
) -> None:
    hostile = models.autoencoder(tmp_path / "hostile")
    models.replace_file(
        hostile, "model.tflite", models.without_graph((hostile / "model.tflite").read_bytes())
    )
    for shared in (None, worker):
        with pytest.raises(errors.ModelRefused, match=r"killed the worker.*SIGSEGV"):
            open_session(hostile, runtime=mf.Runtime.LITERT, worker=shared)
    assert models.ask(session, models.golden_inputs(folder)[0])[0] == "normal", "the other model lives on"


def test_loading_such_bytes_does_no_harm_without_isolation_either(tmp_path: Path) -> None:
    """The golden inputs are run in a process apart before the agent takes the model in."""
    hostile = models.autoencoder(tmp_path / "hostile")
    content = models.without_graph((hostile / "model.tflite").read_bytes())
    models.replace_file(hostile, "model.tflite", content)
    with pytest.raises(errors.ModelRefused, match=r"killed the worker.*SIGSEGV"):
        open_session(hostile, isolation="none", runtime=mf.Runtime.LITERT)


def test_the_worker_dies_with_the_agent(folder: Path) -> None:
    """Also one that is stopped and so never sees the closed pipe."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edge_agent.inference.session import open_session\n"
        "session = open_session(Path(sys.argv[1]), runtime='litert')\n"
        "pid = session._worker.pid; os.kill(pid, signal.SIGSTOP); print(pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    pidfd = open_pidfd(int(done.stdout))
    if pidfd is not None:
        assert process.select.select([pidfd], [], [], 10.0)[0], "the worker outlived the agent"
        os.close(pidfd)


def open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def test_closing_leaves_no_process_and_no_descriptor(folder: Path) -> None:
    open_session(folder, runtime=mf.Runtime.LITERT).close()
    before = set(Path("/proc/self/fd").iterdir())
    for _turn in range(3):
        session = open_session(folder, runtime=mf.Runtime.LITERT)
        models.ask(session, models.golden_inputs(folder)[0])
        session.close()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_readings_flow_on_and_health_tells_while_the_worker_is_dead(
    session: Session, worker: Worker, folder: Path
) -> None:
    health = HealthBoard(FixedClock())
    pipeline = Pipeline([Model(session, None)], health)
    signal_metric = MetricSpec("signal", "1", ms.MetricKind.GAUGE)
    answers = []
    for place in range(models.ELEMENTS + 20):
        if place == models.ELEMENTS + 5:
            os.kill(worker.pid or 0, signal.SIGSEGV)
        sample = Sample(signal_metric, float(place % 3), ms.Quality.GOOD, place * 1000)
        answers.append(len(pipeline.process([sample], place * 1000).inferences))
        if place == models.ELEMENTS + 5:
            (report,) = health.reports()
            assert report.code == "model.crashed"
            assert "SIGSEGV" in report.detail
    assert answers == [0] * models.ELEMENTS + [1] * 5 + [0] + [1] * 14
    assert health.reports() == []


class FixedClock:
    """What dates health codes."""

    def wall_ms(self) -> int:
        return 0
