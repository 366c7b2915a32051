"""Images of an operating system on a real server: larger than anything else, and opaque to it."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet_protocol.targets import MAX_ARTIFACT, ImageFormat
from fleet_signing.metadata import targets_in
from tests.support.update_place import Place, listing, put, ready


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ready(tmp_path_factory.mktemp("place")) as place:
        yield place


def test_an_image_larger_than_any_model_is_published_and_fetched_without_being_held_in_memory(
    place: Place, tmp_path: Path
) -> None:
    """Signed and published in an image's own role, after somebody else agreed."""
    file, size = tmp_path / "system.raucb", MAX_ARTIFACT + (16 << 20)
    file.write_bytes(b"hsqs")
    os.truncate(file, size)
    before_mib = _peak_mib(place)
    words = place.agreed(
        "publish", "os", file, "--keys", place.keys, "--name", "gateway_os", "--version", "1.2",
        "--release", "2", "--profile", "raspberry-pi-5-rauc", "--reason", "a test",
    )  # fmt: skip
    assert "os/gateway_os/2.img" in words
    (target,) = targets_in(place.published().roles["os"].signed)
    assert (target.length, target.description.requires.image) == (size, ImageFormat.RAUC)
    with place.devices() as client:
        path = f"/image/targets/os/gateway_os/{target.sha256}.2.img"
        with client.stream("GET", path, headers={"Range": f"bytes={size - 4}-"}) as part:
            assert (part.status_code, len(part.read())) == (206, 4)
    assert _peak_mib(place) - before_mib < size / 4 / (1 << 20)
    answer = place.refused(
        "publish", "os", file, "--keys", place.keys, "--name", "gateway_os", "--version", "1.3",
        "--release", "3", "--profile", "raspberry-pi-5", "--reason", "a test",
    )  # fmt: skip
    assert "takes none" in answer


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("os/gateway_os/3.img", b"no image"), ("os/gateway_os/3.img", b""), ("os/gateway_os/0.img", b"hsqs"),
        ("os/Gateway/3.img", b"hsqs"), ("os/gateway_os/3.tar", b"hsqs"), ("os/../3.img", b"hsqs"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_and_nothing_stays(place: Place, path: str, content: bytes) -> None:
    before = listing(place)
    assert put(place, path, content).status_code in {404, 422}
    assert listing(place) == before


def _peak_mib(place: Place) -> int:
    """The most memory that any process of the server has taken so far."""
    assert place.server.process is not None
    processes = [psutil.Process(place.server.process.pid)]
    processes += processes[0].children(recursive=True)
    status = [Path(f"/proc/{each.pid}/status").read_text() for each in processes]
    return max(int(line.split()[1]) >> 10 for each in status for line in each.splitlines() if "VmHWM" in line)
