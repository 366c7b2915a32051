"""Artifacts: one form for the same content, and nothing that a device would refuse later."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.targets import Kind
from fleet_signing import archive, artifacts
from fleet_signing.errors import ArtifactError

MODEL = Path("use_cases/water_network/models/pressure_leak")
POLICY = Path("use_cases/water_network/policies/leak.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def test_a_model_is_a_flat_sorted_tar_without_time_or_owner(folder: Path) -> None:
    artifact = artifacts.of_model(folder)
    with tarfile.open(fileobj=io.BytesIO(artifact.content), mode="r:") as tar:
        entries = tar.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert "manifest.json" in names
    assert "MODEL_CARD.md" not in names, "only what the manifest names"
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, 0, "", "", 0o644)}
    assert artifact.target.path == "models/pressure_leak/1.tar"
    assert artifact.target.description.requires.runtimes


def test_the_same_content_gives_the_same_bytes(folder: Path) -> None:
    first = artifacts.of_model(folder)
    for path in folder.iterdir():
        path.chmod(0o600)
        path.touch()
    assert artifacts.of_model(folder) == first
    assert artifacts.of_bytes(Kind.MODEL, first.content) == first
    assert artifacts.read_model(first.content).name == "pressure_leak"


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def change_file(folder: Path) -> None:
    (folder / "pressure_leak.tflite").write_bytes(b"other")


def lose_file(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def list_itself(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["files"].append({"name": "manifest.json", "sha256": "0" * 64, "size": 1})
    path.write_text(json.dumps(content))


def outside(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["files"].append({"name": "../secret", "sha256": "0" * 64, "size": 1})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("spoil", [break_manifest, change_file, lose_file, list_itself, outside])
def test_a_folder_that_is_no_whole_model_is_refused(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    with pytest.raises(ArtifactError):
        artifacts.of_model(folder)


def retar(content: bytes, change: Callable[[tarfile.TarInfo], tarfile.TarInfo], *more: str) -> bytes:
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for entry in old:
            new.addfile(change(entry), old.extractfile(entry))
        for name in more:
            new.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def same(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    return entry


def later(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = 1
    return entry


def executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o4755
    return entry


@pytest.mark.parametrize(
    ("change", "more"), [(later, ()), (executable, ()), (same, ("stray",)), (same, ("../../etc/cron.d/x",))]
)
def test_a_tar_in_another_form_is_refused(
    folder: Path, change: Callable[[tarfile.TarInfo], tarfile.TarInfo], more: tuple[str, ...]
) -> None:
    content = retar(artifacts.of_model(folder).content, change, *more)
    with pytest.raises(ArtifactError):
        artifacts.of_bytes(Kind.MODEL, content)


def test_links_and_what_follows_the_tar_are_refused(folder: Path) -> None:
    content = artifacts.of_model(folder).content
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("golden.npz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for bad in (
        buffer.getvalue(),
        content + b"\0" * 10240,
        content[:-10240],
        content[:1000],
        b"",
        b"\x1f\x8b",
    ):
        with pytest.raises(ArtifactError):
            artifacts.of_bytes(Kind.MODEL, bad)


def test_a_policy_is_its_own_bytes_and_is_checked_against_its_model(folder: Path) -> None:
    content = POLICY.read_bytes()
    model = artifacts.read_model(artifacts.of_model(folder).content)
    artifact = artifacts.of_policy(content, model)
    assert artifact.content == content
    assert artifact.target.description.requires.model == "pressure_leak"
    wrong = content.replace(b"score", b"scorn")
    assert artifacts.of_policy(wrong).target.path == artifact.target.path, "without a model it only parses"
    with pytest.raises(ArtifactError, match="scorn"):
        artifacts.of_policy(wrong, model)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"format = 2", POLICY.read_bytes() + b"more = 1\n", b"#" * 70_000]
)
def test_what_is_no_policy_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        artifacts.of_bytes(Kind.POLICY, content)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.of_model(tmp_path / "nowhere")


@given(
    files=st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=99),
        st.binary(max_size=2000),
        max_size=8,
    )
)
def test_every_folder_comes_back_out_of_its_tar(files: dict[str, bytes]) -> None:
    content = archive.pack(files)
    assert {name: content[place] for name, place in archive.places(content).items()} == files


TAR = archive.pack({"a": b"one", "b": b"", "c": b"three" * 200})


@given(place=st.integers(0, len(TAR) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_in_a_file_s_content_or_is_refused(place: int, value: int) -> None:
    changed = bytearray(TAR)
    changed[place] = value
    try:
        found = archive.places(bytes(changed))
    except ArtifactError:
        assert bytes(changed) != TAR
        return
    assert archive.pack({name: bytes(changed)[where] for name, where in found.items()}) == bytes(changed)


@given(content=st.binary(max_size=3000))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        archive.places(content)
