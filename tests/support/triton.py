"""NVIDIA Triton from its wheel, started directly, with a model that its Python backend runs.

PyTriton's proxy is left out: its stub carries an interpreter of its own and is slower. The binary
runs without a GPU and says so as warnings.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from fleet_protocol import central
from tests.support.central import NONE_LOGIT
from tests.support.waiting import free_port, wait_until

HOME = Path(sys.prefix) / "triton"
READY_S = 60.0

_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [
  {{ name: "readings" data_type: TYPE_FP32 dims: {shape} }},
  {{ name: "mask" data_type: TYPE_FP32 dims: {shape} }}
]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 1, {labels} ] }} ]
instance_group [ {{ count: 1 kind: {kind} }} ]
"""

_MODEL = '''\
"""The central model, inside Triton."""

import sys

# This interpreter is isolated: no variable of the environment leads it to our packages.
sys.path[:0] = {packages!r}

import numpy as np
import triton_python_backend_utils as pb_utils
{network}

class TritonPythonModel:
    def initialize(self, args):
        self.network = Network()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = ("readings", "mask")
        inputs = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names]
        output = np.ascontiguousarray(self.network(*inputs), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", output)])
'''

_OPENVINO = '''\
import openvino as ov


class Network:
    """The files of the model's folder."""

    def __init__(self):
        settings = {{"INFERENCE_PRECISION_HINT": "f32"}}
        self.model = ov.Core().compile_model({file!r}, "CPU", settings)

    def __call__(self, readings, mask):
        return self.model({{"readings": readings, "mask": mask}})["probabilities"]

'''

_TORCH = '''\
import torch


class Network:
    """What the files of tests/support/central.py compute."""

    def __call__(self, readings, mask):
        readings, mask = (torch.from_numpy(given).to({device!r}) for given in (readings, mask))
        means = (readings * mask).sum(3) / mask.sum(3).clamp(min=1.0)
        none = torch.full((1, 1), {none}, device={device!r})
        return torch.softmax(torch.cat([none, means[:, :, 0]], 1), 1).cpu().numpy()

'''


def is_installed() -> bool:
    """Whether ``scripts/bootstrap tests`` has put it there."""
    return (HOME / "pytriton").is_dir() and (HOME / "numpy").is_dir()


@contextmanager
def serving(
    folder: Path, model: Path, device: str = "cpu"
) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """URL and process of a Triton with the central model in ``model``; its own files go into ``folder``.

    On ``cpu`` OpenVINO runs the model's files; on ``cuda`` PyTorch computes what they do.
    """
    manifest = central.parse((model / central.FILE_NAME).read_bytes())
    repository = _repository(folder, model, manifest, device)
    port = free_port()
    log = folder / "triton.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            _command(repository, _backends(folder), port), env=_environment(), stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _is_ready(url, process, log), "Triton is ready", READY_S)
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _repository(folder: Path, model: Path, manifest: central.CentralManifest, device: str) -> Path:
    version = folder / "models" / manifest.name / "1"
    version.mkdir(parents=True)
    kind = "KIND_CPU" if device == "cpu" else "KIND_GPU"
    config = _CONFIG.format(
        name=manifest.name, shape=list(manifest.shape), labels=len(manifest.labels), kind=kind
    )
    (version.parent / "config.pbtxt").write_text(config)
    # Its own numpy before ours: its backend was built for numpy 1.
    packages = [str(HOME), *(path for path in sys.path if path.endswith("site-packages"))]
    if device == "cpu":
        network = _OPENVINO.format(file=str(model / manifest.file))
    else:
        network = _TORCH.format(device=device, none=NONE_LOGIT)
    (version / "model.py").write_text(_MODEL.format(packages=packages, network=network))
    return folder / "models"


def _backends(folder: Path) -> Path:
    """Its Python backend, with the stub of this Python beside it as the backend asks."""
    backends = folder / "backends"
    shutil.copytree(HOME / "pytriton/tritonserver/backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy(HOME / "pytriton/tritonserver/python_backend_stubs" / version / stub, backends / "python")
    (backends / "python" / stub).chmod(0o755)
    return backends


def _command(repository: Path, backends: Path, port: int) -> list[str]:
    binary = HOME / "pytriton/tritonserver/bin/tritonserver"
    binary.chmod(0o755)
    return [
        str(binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
    ]


def _environment() -> dict[str, str]:
    base = Path(sys.base_prefix) / "lib"
    libraries = [str(HOME / "nvidia_pytriton.libs"), str(base)]
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def _is_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    try:
        return httpx.get(f"{url}/v2/health/ready", trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
