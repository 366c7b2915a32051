"""A build of the agent says what its wheels say, and no wheel writes where it must not."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import UpdateRefused
from edge_agent.slots import wheels as unpacking
from edge_agent.slots.wheels import Unpacker
from fleet_protocol.agent_build import DOCUMENT, Health, parse
from fleet_protocol.errors import ManifestError
from fleet_protocol.targets import Kind
from fleet_signing import agent_builds, archive
from fleet_signing.artifacts import of_bytes
from fleet_signing.errors import ArtifactError

ARGAN = "argan-0.2.0-py3-none-any.whl"
NATIVE = "msgspec-0.22.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
STABLE = "cryptography-50.0.2-cp39-abi3-manylinux_2_34_x86_64.whl"


def wheel(files: Mapping[str, bytes] | None = None) -> bytes:
    """A wheel's bytes with ``files``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archived:
        for name, content in (files or {"thing/__init__.py": b"x = 1\n"}).items():
            archived.writestr(name, content)
    return out.getvalue()


def packed(*names: str) -> bytes:
    return agent_builds.pack({name: wheel() for name in names}, 4, Health())


def changed(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The same tar with another document."""
    files = {name: content[place] for name, place in archive.places(content).items()}
    document = json.loads(files[DOCUMENT])
    change(document)
    return archive.pack(files | {DOCUMENT: json.dumps(document).encode()})


def test_python_machines_and_version_are_those_of_the_wheels() -> None:
    content = packed(ARGAN, NATIVE, STABLE)
    assert content == packed(STABLE, NATIVE, ARGAN), "the same wheels are the same artifact"
    described = of_bytes(Kind.AGENT, content).target.description
    assert (described.name, described.version, described.release) == ("argan", "0.2.0", 4)
    assert (described.requires.python, described.requires.machines) == ("3.11", ("x86_64",))
    assert of_bytes(Kind.AGENT, content).target.path == "agent/argan/4.tar"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((NATIVE,), "exactly one wheel of the agent"),
        ((ARGAN, "argan-0.3.0-py3-none-any.whl", NATIVE), "exactly one wheel of the agent"),
        ((ARGAN,), "one version of Python"),
        ((ARGAN, NATIVE, "cffi-2.1.1-cp312-cp312-manylinux_2_17_x86_64.whl"), "3.11, 3.12"),
        ((ARGAN, NATIVE, "cffi-2.1.1-cp311-cp311-manylinux_2_17_aarch64.whl"), "different machines"),
        ((ARGAN, NATIVE, "cffi-2.1.1-cp311-cp311-win_amd64.whl"), "no Linux"),
        ((ARGAN, NATIVE, "notes.txt"), "not the name of a wheel"),
        ((ARGAN, NATIVE, "a-b.whl"), "not the name of a wheel"),
    ],
)
def test_wheels_that_are_not_one_agent_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        packed(*names)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(python="3.12"),
        lambda document: document.update(version="9.9.9"),
        lambda document: document.update(machines=[]),
        lambda document: document.update(format=2),
        lambda document: document.update(more=1),
        lambda document: document.update(health={"least_s": 10.0, "deadline_s": 5.0}),
        lambda document: document["wheels"].pop(),
        lambda document: document["wheels"].append(document["wheels"][0]),
        lambda document: document["wheels"][0].update(sha256="0" * 64),
        lambda document: document["wheels"][0].update(name="../x.whl"),
        lambda document: document.pop("release"),
    ],
)
def test_a_document_that_does_not_fit_its_wheels_is_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    content = packed(ARGAN, NATIVE)
    with pytest.raises(ArtifactError):
        agent_builds.read(changed(content, change))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}", b"[" * 100_000])
def test_what_is_no_document_is_told(content: bytes) -> None:
    with pytest.raises(ManifestError, match=DOCUMENT):
        parse(content)


def test_a_wheel_is_unpacked_without_its_scripts(tmp_path: Path) -> None:
    content = {
        "thing/__init__.py": b"x = 1\n",
        "thing-1.data/purelib/other/__init__.py": b"y = 2\n",
        "thing-1.data/platlib/native.so": b"\x7fELF",
        "thing-1.data/scripts/thing": b"#!python\n",
        "thing-1.dist-info/METADATA": b"Name: thing\n",
    }
    (tmp_path / "thing.whl").write_bytes(wheel(content))
    Unpacker(tmp_path / "site").add(tmp_path / "thing.whl")
    found = {
        str(each.relative_to(tmp_path / "site")) for each in (tmp_path / "site").rglob("*") if each.is_file()
    }
    assert found == {"thing/__init__.py", "other/__init__.py", "native.so", "thing-1.dist-info/METADATA"}


@pytest.mark.attack
@pytest.mark.parametrize(
    "name",
    [
        "../outside.py",
        "/etc/outside.py",
        "thing/../../outside.py",
        "thing\\..\\outside.py",
        "thing-1.data/purelib/../../outside.py",
        "evil.pth",
        "thing-1.data/purelib/evil.pth",
        "sitecustomize.py",
        "sitecustomize/__init__.py",
        "usercustomize.cpython-311-x86_64-linux-gnu.so",
        "thing-1.data/platlib/sitecustomize/__init__.pyc",
        "thing-1.data/unknown/x.py",
        "thing-1.data/x.py",
    ],
)
def test_a_wheel_that_would_write_elsewhere_or_run_at_every_start_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "evil.whl").write_bytes(wheel({"thing/__init__.py": b"", name: b"import os\n"}))
    with pytest.raises(UpdateRefused, match=r"evil\.whl"):
        Unpacker(tmp_path / "slot" / "site").add(tmp_path / "evil.whl")
    assert not (tmp_path / "outside.py").exists()
    assert not (tmp_path / "slot" / "outside.py").exists()


def test_a_wheel_that_brings_what_another_brought_is_refused(tmp_path: Path) -> None:
    for name in ("one.whl", "two.whl"):
        (tmp_path / name).write_bytes(wheel())
    unpacker = Unpacker(tmp_path / "site")
    unpacker.add(tmp_path / "one.whl")
    with pytest.raises(UpdateRefused, match="is there already"):
        unpacker.add(tmp_path / "two.whl")


@pytest.mark.attack
def test_wheels_that_grow_without_end_are_refused_before_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MAX_BYTES", 1 << 20)
    (tmp_path / "bomb.whl").write_bytes(wheel({"a.py": b"", "bomb.py": bytes(8 << 20)}))
    with pytest.raises(UpdateRefused, match="bytes unpacked"):
        Unpacker(tmp_path / "site").add(tmp_path / "bomb.whl")
    assert not (tmp_path / "site" / "bomb.py").exists()


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_what_is_no_wheel_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "torn.whl").write_bytes(wheel()[:cut])
    with pytest.raises(UpdateRefused):
        Unpacker(tmp_path / "site").add(tmp_path / "torn.whl")
