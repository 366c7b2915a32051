"""Opening and asking real models on every installed runtime, in a worker and in this process."""

import contextlib
import math
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.autoencoder import write_bundle
from edge_agent import errors
from edge_agent.inference.process import Worker
from edge_agent.inference.session import Isolation, Session, open_session
from fleet_protocol import manifest as mf
from tests.support import models

Open = Callable[..., Session]
EVERYWHERE = pytest.mark.parametrize("isolation", ["worker", "none"])
ON_EACH = pytest.mark.parametrize("runtime", models.INSTALLED)


@pytest.fixture
def opened() -> Iterator[Open]:
    """``open_session``, with everything closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(contextlib.closing(open_session(*args, **options)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.autoencoder(tmp_path / "autoencoder")


def expected_scores(folder: Path) -> list[float]:
    """From the golden outputs by the definition in the manifest, without the agent's code."""
    manifest = mf.parse((folder / "manifest.json").read_bytes())
    with np.load(folder / "golden.npz") as arrays:
        errors_of = ((arrays["outputs"] - arrays["inputs"]) ** 2).mean(axis=1)
    return list(errors_of / manifest.output.threshold)


@EVERYWHERE
@ON_EACH
def test_answers_as_the_golden_outputs_say(
    opened: Open, folder: Path, runtime: mf.Runtime, isolation: Isolation
) -> None:
    session = opened(folder, isolation=isolation, runtime=runtime)
    assert (session.runtime, session.isolation) == (runtime, isolation)
    for window, score in zip(models.golden_inputs(folder), expected_scores(folder), strict=True):
        answer = session.infer([memoryview(window)])
        assert answer.score == pytest.approx(score, abs=0.02)
        assert answer.confidence == pytest.approx(1 - answer.score / 2)
        assert answer.label == "normal"
    strange = session.infer([memoryview(array("f", [3.0, -3.0] * 32))])
    assert strange.label == "strange"
    assert strange.score > 10.0


@ON_EACH
@pytest.mark.parametrize("elements", [8, 128, 256, 257, 512])
def test_layers_of_any_width_are_right_on_every_cpu(
    opened: Open, tmp_path: Path, runtime: mf.Runtime, elements: int
) -> None:
    """Opening checks the answers; left to itself OpenVINO fails up to 256 numbers on some CPUs."""
    write_bundle(tmp_path, elements)
    assert opened(tmp_path, runtime=runtime).runtime is runtime


@ON_EACH
def test_worker_and_process_answer_alike(opened: Open, folder: Path, runtime: mf.Runtime) -> None:
    apart = opened(folder, isolation="worker", runtime=runtime)
    here = opened(folder, isolation="none", runtime=runtime)
    for window in models.golden_inputs(folder):
        assert models.ask(apart, window) == models.ask(here, window)


@pytest.mark.parametrize("model", models.WAKE_WORDS, ids=lambda path: path.stem)
def test_a_streaming_model_begins_fresh_after_the_golden_check(
    opened: Open, model: Path, tmp_path: Path
) -> None:
    folder = models.wake_word(tmp_path / "wake", model)
    with np.load(folder / "golden.npz") as arrays:
        wanted = arrays["outputs"].ravel().tolist()
    for isolation in ("worker", "none"):
        session = opened(folder, isolation=isolation)
        assert [models.ask(session, window)[1] for window in models.golden_inputs(folder)] == wanted


def test_a_streaming_model_remembers(opened: Open, tmp_path: Path) -> None:
    folder = models.wake_word(
        tmp_path / "wake", next(each for each in models.WAKE_WORDS if "mycroft" in each.stem)
    )
    session = opened(folder)
    first = [models.ask(session, window) for window in models.golden_inputs(folder)]
    assert [models.ask(session, window) for window in models.golden_inputs(folder)] != first


def test_several_models_share_one_worker(opened: Open, folder: Path, tmp_path: Path) -> None:
    worker = Worker()
    other = models.wake_word(tmp_path / "wake", models.WAKE_WORDS[0])
    first = opened(folder, worker=worker, runtime=mf.Runtime.LITERT)
    second = opened(other, worker=worker)
    alone = opened(folder, isolation="none", runtime=mf.Runtime.LITERT)
    heard = models.golden_inputs(other)
    for place, window in enumerate(models.golden_inputs(folder)[:20]):
        assert models.ask(first, window) == models.ask(alone, window)
        assert models.ask(second, heard[place])[0] in {"nothing", "heard"}
    assert models.ask(first, window)[0] == "normal"
    worker.close()


@EVERYWHERE
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["reconstruction", "classification"])
def test_a_window_with_no_number_has_no_answer_and_does_no_harm(
    opened: Open, folder: Path, tmp_path: Path, isolation: Isolation, poison: float, kind: str
) -> None:
    if kind == "classification":
        folder = models.wake_word(tmp_path / "wake", models.WAKE_WORDS[0])
    session = opened(folder, isolation=isolation, runtime=mf.Runtime.LITERT)
    good = models.golden_inputs(folder)[0]
    bad = array("f", good)
    bad[5] = poison
    before = models.ask(session, good)
    with pytest.raises(errors.InferenceError, match="no number"):
        models.ask(session, bad)
    if kind == "reconstruction":
        assert models.ask(session, good) == before


def test_the_fastest_runtime_that_is_right_is_chosen(opened: Open, folder: Path) -> None:
    session = opened(folder)
    # Dozens of microseconds against a few on a model this small, on every board measured.
    assert session.runtime is mf.Runtime.LITERT


def test_a_runtime_that_is_wrong_here_is_passed_over(opened: Open, folder: Path) -> None:
    """LiteRT gets a file whose weights are 0: its golden check fails, OpenVINO's does not."""
    models.rewrite(folder, with_wrong_litert)
    content = models.without_first_layer((folder / "model.tflite").read_bytes())
    models.replace_file(folder, "wrong.tflite", content)
    assert opened(folder).runtime is mf.Runtime.OPENVINO
    for isolation in ("worker", "none"):
        with pytest.raises(errors.ModelRefused, match=r"worst difference .* labels agree on"):
            opened(folder, isolation=isolation, runtime=mf.Runtime.LITERT)


def with_wrong_litert(manifest: mf.Manifest) -> mf.Manifest:
    (right,) = manifest.variants
    return msgspec.structs.replace(
        manifest,
        files=(*manifest.files, mf.File("wrong.tflite", "0" * 64, 1)),
        variants=(
            msgspec.structs.replace(right, file="wrong.tflite", runtimes=(mf.Runtime.LITERT,)),
            msgspec.structs.replace(right, runtimes=(mf.Runtime.OPENVINO,)),
        ),
    )


def test_the_agent_itself_imports_no_number_crunching(folder: Path) -> None:
    """In worker mode neither NumPy nor a runtime may come into the agent's memory."""
    program = (
        "import sys; from pathlib import Path; from array import array\n"
        "from edge_agent.inference.session import open_session\n"
        "from edge_agent.pipeline.pipeline import Pipeline\n"
        "session = open_session(Path(sys.argv[1]))\n"
        "print(session.infer([memoryview(array('f', [0.0] * 64))]).label)\n"
        "session.close()\n"
        "heavy = {'numpy', 'ai_edge_litert', 'openvino', 'tflite_runtime'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("normal\n", "")


def test_openvino_loads_nothing_that_reports_to_anyone(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from edge_agent.inference.session import open_session\n"
        "open_session(Path(sys.argv[1]), isolation='none', runtime='openvino')\n"
        "assert 'openvino' in sys.modules\n"
        "print([name for name in sys.modules if 'telemetry' in name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
