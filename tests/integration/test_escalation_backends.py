"""One suite for everything that runs a central model: in this process, Triton, a small server of our own."""

import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fleet_protocol import central
from fleet_server.errors import BackendDown, BackendError, BackendLate
from fleet_server.escalation.backend import InferenceBackend, Tensor, require_fitting
from fleet_server.escalation.folder import open_folder
from fleet_server.escalation.oip import MAX_ANSWER, OipBackend
from tests.support import oip_server, triton
from tests.support.waiting import free_port

pytest.importorskip("openvino")

from fleet_server.escalation.openvino import OpenVinoBackend
from tests.support.central import expected, write_central

GATEWAYS = ("gw-1", "gw-2")
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("central")
    write_central(folder, GATEWAYS)
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> central.CentralManifest:
    return open_folder(folder).manifest


@pytest.fixture(scope="module", params=["openvino", "own", pytest.param("triton", marks=pytest.mark.triton)])
def backend(
    request: pytest.FixtureRequest,
    folder: Path,
    manifest: central.CentralManifest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[InferenceBackend]:
    if request.param == "openvino":
        yield OpenVinoBackend(open_folder(folder), 2)
    elif request.param == "own":
        with oip_server.serving(manifest) as server:
            yield from closing(OipBackend(server.url))
    else:
        if not triton.is_installed():
            pytest.skip("NVIDIA Triton is not installed; run scripts/bootstrap tests")
        with triton.serving(tmp_path_factory.mktemp("triton"), folder) as (url, _process):
            yield from closing(OipBackend(url))


def closing(backend: OipBackend) -> Iterator[InferenceBackend]:
    yield backend
    backend.close()


def inputs(manifest: central.CentralManifest, first: float, second: float) -> dict[str, Tensor]:
    """Both gateways measure one value all the time; the last step of the second is missing."""
    readings = array("f", [first] * 4 + [9.0] * 4 + [second] * 3 + [0.0] + [9.0] * 4)
    mask = array("f", [1.0] * 11 + [0.0] + [1.0] * 4)
    return {
        "readings": Tensor(manifest.shape, readings.tobytes()),
        "mask": Tensor(manifest.shape, mask.tobytes()),
    }


def soon(seconds: float = DEADLINE_S) -> float:
    return time.monotonic() + seconds


def ask(backend: InferenceBackend, tensors: dict[str, Tensor]) -> list[float]:
    output = backend.infer("network", tensors, soon())["probabilities"]
    assert output.shape == (1, 3)
    return array("f", output.values).tolist()


def test_it_tells_its_tensors(backend: InferenceBackend, manifest: central.CentralManifest) -> None:
    require_fitting(backend.metadata("network"), manifest)


def test_it_computes(backend: InferenceBackend, manifest: central.CentralManifest) -> None:
    for first, second in ((1.0, 5.0), (5.0, 1.0), (-3.0, 0.0)):
        found = ask(backend, inputs(manifest, first, second))
        assert found == pytest.approx(expected([first, second]), abs=1e-5)


def test_it_answers_many_at_once_each_its_own(
    backend: InferenceBackend, manifest: central.CentralManifest
) -> None:
    numbers = [number / 10 for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: ask(backend, inputs(manifest, number, 1.0)), numbers))
    for number, probabilities in zip(numbers, found, strict=True):
        assert probabilities == pytest.approx(expected([number, 1.0]), abs=1e-5)


def test_a_model_that_is_not_there_is_down(
    backend: InferenceBackend, manifest: central.CentralManifest
) -> None:
    with pytest.raises(BackendDown):
        backend.metadata("another")
    with pytest.raises(BackendDown):
        backend.infer("another", inputs(manifest, 1.0, 1.0), soon())


@pytest.mark.parametrize("shape", [(1, 2, 2, 3), (1, 16), (2, 2, 2, 4)])
def test_another_shape_is_refused_and_the_next_is_answered(
    backend: InferenceBackend, manifest: central.CentralManifest, shape: tuple[int, ...]
) -> None:
    good = inputs(manifest, 1.0, 5.0)
    size = 4
    for one in shape:
        size *= one
    bad = {name: Tensor(shape, bytes(size)) for name in good}
    with pytest.raises(BackendError) as refused:
        backend.infer("network", bad, soon())
    assert not isinstance(refused.value, BackendDown | BackendLate)
    assert ask(backend, good) == pytest.approx(expected([1.0, 5.0]), abs=1e-5)


def test_bytes_that_are_not_of_the_shape_never_leave(
    backend: InferenceBackend, manifest: central.CentralManifest
) -> None:
    tensors = inputs(manifest, 1.0, 1.0)
    tensors["mask"] = Tensor(manifest.shape, b"123")
    with pytest.raises(BackendError, match="has 3 bytes"):
        backend.infer("network", tensors, soon())


def test_a_tensor_that_is_missing_is_refused(
    backend: InferenceBackend, manifest: central.CentralManifest
) -> None:
    tensors = inputs(manifest, 1.0, 1.0)
    del tensors["mask"]
    with pytest.raises(BackendError):
        backend.infer("network", tensors, soon())


def test_a_deadline_that_has_passed_is_late(
    backend: InferenceBackend, manifest: central.CentralManifest
) -> None:
    with pytest.raises(BackendLate):
        backend.infer("network", inputs(manifest, 1.0, 1.0), time.monotonic() - 1.0)


@pytest.mark.gpu
@pytest.mark.triton
def test_a_gpu_computes_the_same(folder: Path, manifest: central.CentralManifest, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="no PyTorch here; untested on a GPU")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here; untested on one")
    if not triton.is_installed():
        pytest.skip("NVIDIA Triton is not installed; run scripts/bootstrap tests")
    with triton.serving(tmp_path, folder, "cuda") as (url, _process):
        backend = OipBackend(url)
        require_fitting(backend.metadata("network"), manifest)
        for first, second in ((1.0, 5.0), (5.0, 1.0)):
            found = ask(backend, inputs(manifest, first, second))
            assert found == pytest.approx(expected([first, second]), abs=1e-4)
        backend.close()


def test_a_server_that_is_away_is_down(manifest: central.CentralManifest) -> None:
    backend = OipBackend(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BackendDown, match="cannot be reached"):
        backend.infer("network", inputs(manifest, 1.0, 1.0), soon())
    backend.close()


def test_a_server_that_is_slow_is_late_and_waited_for_no_longer(manifest: central.CentralManifest) -> None:
    with oip_server.serving(manifest) as server:
        server.held.clear()
        backend = OipBackend(server.url)
        began = time.monotonic()
        with pytest.raises(BackendLate):
            backend.infer("network", inputs(manifest, 1.0, 1.0), soon(0.3))
        assert 0.25 < time.monotonic() - began < 5.0
        backend.close()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """An answer of which a byte comes every 50 ms: no single wait is ever long."""
    stop = threading.Event()
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _number in range(200):
        handler.wfile.write(b" ")
        stop.wait(0.05)


def test_a_server_that_drips_is_late(manifest: central.CentralManifest) -> None:
    with oip_server.serving(manifest) as server:
        server.misbehave = drip
        backend = OipBackend(server.url)
        began = time.monotonic()
        with pytest.raises(BackendLate):
            backend.infer("network", inputs(manifest, 1.0, 1.0), soon(0.5))
        assert time.monotonic() - began < 5.0
        backend.close()


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(2 * MAX_ANSWER))
    handler.end_headers()
    for _number in range(2 * MAX_ANSWER // 2**20):
        handler.wfile.write(bytes(2**20))


def says(status: int, content: bytes, head: str = "") -> object:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        if head:
            handler.send_header("Inference-Header-Content-Length", head)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


NAN = b'{"outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,3],"data":[0,0,1]}]}'
SHORT = b'{"outputs":[{"name":"p","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}1234'


@pytest.mark.parametrize(
    ("misbehave", "family"),
    [
        (endless, BackendError),
        (hangs_up, BackendDown),
        (says(500, b"oops"), BackendDown),
        (says(400, b"\xff\xfe"), BackendError),
        (says(200, b"no json"), BackendError),
        (says(200, b"[" * 100_000), BackendError),
        (says(200, NAN), BackendError),
        (says(200, SHORT, str(len(SHORT) - 4)), BackendError),
        (says(200, SHORT, "99999999"), BackendError),
        (says(200, SHORT, "-5"), BackendError),
        (says(302, b""), BackendError),
    ],
    ids=["endless", "hangs up", "500", "400", "no json", "deep", "as json", "short", "head", "sign", "moved"],
)
def test_what_a_server_may_say_is_one_error(
    manifest: central.CentralManifest, misbehave: object, family: type[BackendError]
) -> None:
    with oip_server.serving(manifest) as server:
        server.misbehave = misbehave  # type: ignore[assignment]
        backend = OipBackend(server.url)
        with pytest.raises(family):
            backend.infer("network", inputs(manifest, 1.0, 1.0), soon())
        backend.close()


def test_a_model_unlike_its_manifest_is_refused(
    folder: Path, tmp_path: Path, manifest: central.CentralManifest
) -> None:
    other = write_central(tmp_path, GATEWAYS, steps=8)
    backend = OpenVinoBackend(open_folder(folder), 1)
    with pytest.raises(BackendError, match="deliver both from one training"):
        require_fitting(backend.metadata("network"), other)


@pytest.mark.parametrize("damage", ["missing", "changed", "no manifest", "no model"])
def test_a_folder_that_is_not_whole_is_down(tmp_path: Path, damage: str) -> None:
    write_central(tmp_path, GATEWAYS)
    if damage == "missing":
        (tmp_path / "network.bin").unlink()
    elif damage == "changed":
        (tmp_path / "network.xml").write_bytes(b"changed")
    elif damage == "no manifest":
        (tmp_path / "central.json").write_bytes(b"{")
    else:
        (tmp_path / "network.xml").write_bytes(b"<net/>")
        rewritten = central.parse((tmp_path / "central.json").read_bytes())
        vouch_for(tmp_path, rewritten)
    with pytest.raises(BackendDown):
        OpenVinoBackend(open_folder(tmp_path), 1)


def vouch_for(folder: Path, manifest: central.CentralManifest) -> None:
    """Make the manifest name the files as they are."""
    import hashlib

    import msgspec

    files = tuple(
        msgspec.structs.replace(
            each,
            sha256=hashlib.sha256((folder / each.name).read_bytes()).hexdigest(),
            size=(folder / each.name).stat().st_size,
        )
        for each in manifest.files
    )
    (folder / "central.json").write_bytes(central.encode(msgspec.structs.replace(manifest, files=files)))
