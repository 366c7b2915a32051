"""The store: only what is whole, only what the manifest names, and nothing that nobody refers to."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import UpdateBroken, UpdateRefused
from edge_agent.inference.bundle import read_bundle
from edge_agent.updates.store import Store, read_policy
from fleet_protocol.errors import PolicyError
from fleet_protocol.targets import Description, Kind, Refusal, Target, path_of
from fleet_signing.artifacts import Artifact
from tests.support.disk import fill
from tests.support.updating import model_artifact, policy_artifact

MODEL = model_artifact(3)
POLICY = policy_artifact(2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def put(store: Store, artifact: Artifact, content: bytes | None = None) -> Target:
    """Lay an artifact where the look leaves it; with other ``content``, as if that had been signed."""
    target = artifact.target
    if content is not None:
        sha256 = hashlib.sha256(content).hexdigest()
        target = Target(target.path, len(content), sha256, target.description)
    file = store.downloaded(target.sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(artifact.content if content is None else content)
    return target


def test_a_model_is_unpacked_as_its_folder(store: Store) -> None:
    target = put(store, MODEL)
    store.add(target)
    bundle = read_bundle(store.place(target.sha256))
    assert (bundle.manifest.name, bundle.manifest.release) == ("autoencoder", 3)
    for entry in bundle.manifest.files:
        bundle.read(entry.name)
    store.add(target)  # once more changes nothing
    assert [each.name for each in store.place(target.sha256).parent.iterdir()] == [target.sha256]


def test_a_policy_is_its_file_and_noticed_when_changed(store: Store) -> None:
    target = put(store, POLICY)
    store.add(target)
    file = store.policy(target.sha256)
    assert read_policy(file, target.sha256).name == "watch"
    file.write_bytes(file.read_bytes().replace(b"0.0", b"9.9"))
    with pytest.raises(PolicyError, match="changed"):
        read_policy(file, target.sha256)


@pytest.mark.attack
@pytest.mark.parametrize("acts", [True, False])
def test_a_policy_does_not_act_under_another_signature_than_it_takes(store: Store, *, acts: bool) -> None:
    """The key of policies that tell vouches for the bytes of one that acts, and the other way round."""
    signed = policy_artifact(2, actuates=not acts)
    target = put(store, signed, policy_artifact(2, actuates=acts).content)
    with pytest.raises(UpdateRefused, match=r"the policy .* was signed as one that") as refused:
        store.add(target)
    assert refused.value.refusal is Refusal.DISAGREEMENT
    assert not store.has(target.sha256)


def test_a_policy_that_acts_is_stored_when_it_was_signed_as_one(store: Store) -> None:
    target = put(store, policy_artifact(2, actuates=True))
    store.add(target)
    assert read_policy(store.policy(target.sha256), target.sha256).actuates


@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.OS])
def test_software_is_kept_as_the_one_file_that_came_and_takes_no_room_twice(store: Store, kind: Kind) -> None:
    described = Description(kind=kind, name="thing", version="1", release=1)
    target = Target(path_of(described), len(POLICY.content), POLICY.target.sha256, described)
    put(store, POLICY)
    store.add(target)
    (file,) = store.place(target.sha256).iterdir()
    assert file == (store.image if kind is Kind.OS else store.build)(target.sha256)
    assert file.samefile(store.downloaded(target.sha256))


def test_what_is_half_there_from_before_is_made_anew(store: Store, tmp_path: Path) -> None:
    target = put(store, MODEL)
    draft = tmp_path / "artifacts" / f".draft-{target.sha256}"
    draft.mkdir(parents=True)
    (draft / "manifest.json").write_bytes(b"half")
    store.add(target)
    read_bundle(store.place(target.sha256))


def test_a_download_that_changed_since(store: Store) -> None:
    target = put(store, MODEL)
    store.downloaded(target.sha256).write_bytes(b"x")
    with pytest.raises(UpdateBroken, match="fetched again"):
        store.add(target)
    assert not store.downloaded(target.sha256).exists()


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(small_disk: Path) -> None:
    store = Store(small_disk)
    target = put(store, MODEL)
    (small_disk / "artifacts").mkdir()
    fill(small_disk / "filler")
    with pytest.raises(UpdateBroken):
        store.add(target)
    assert not store.has(target.sha256)
    (small_disk / "filler").unlink()
    store.add(target)
    assert store.has(target.sha256)


def test_only_what_is_wanted_is_kept(store: Store, tmp_path: Path) -> None:
    model, policy = put(store, MODEL), put(store, POLICY)
    store.add(model)
    store.add(policy)
    (tmp_path / "downloads" / f"{'a' * 64}.part").write_bytes(b"half")
    (tmp_path / "downloads" / f"{policy.sha256}.etag").write_bytes(b"tag")
    store.sweep({policy.sha256})
    kept = sorted(path.name for path in tmp_path.glob("*/*"))
    assert kept == sorted([policy.sha256, policy.sha256, f"{policy.sha256}.etag"])


# The tar.


def members() -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(MODEL.content)) as tar:
        found = []
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            found.append((entry, file.read()))
        return found


def packed(
    contents: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT, tail: bytes = b""
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for entry, content in contents:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue() + tail


def added(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    entry.size = len(content) if kind == tarfile.REGTYPE else 0
    return packed([*members(), (entry, content)])


def renamed(name: str) -> bytes:
    (first, content), *rest = members()
    first.name = name
    return packed([(first, content), *rest])


def changed() -> bytes:
    found = members()
    entry, content = found[0]
    found[0] = (entry, content[:-1] + bytes([content[-1] ^ 1]))
    return packed(found)


def broken_checksum() -> bytes:
    content = bytearray(MODEL.content)
    content[0] ^= 1
    return bytes(content)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a file that nobody names": lambda: added("extra.bin"),
    "a file twice": lambda: packed([*members(), members()[0]]),
    "a file missing": lambda: packed(members()[:-1]),
    "no manifest": lambda: packed([each for each in members() if each[0].name != "manifest.json"]),
    "a folder above": lambda: renamed("../golden.npz"),
    "a folder": lambda: renamed("sub/golden.npz"),
    "an absolute path": lambda: renamed("/etc/golden.npz"),
    "the folder itself": lambda: added(".", b"", tarfile.DIRTYPE),
    "a symbolic link": lambda: added("link", b"", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": lambda: added("link", b"", tarfile.LNKTYPE, "golden.npz"),
    "a device": lambda: added("null", b"", tarfile.CHRTYPE),
    "a pipe": lambda: added("pipe", b"", tarfile.FIFOTYPE),
    "a long name": lambda: packed([*members(), (tarfile.TarInfo("n" * 200), b"")], form=tarfile.GNU_FORMAT),
    "pax headers": lambda: packed([*members(), (tarfile.TarInfo("ñ"), b"")], form=tarfile.PAX_FORMAT),
    "changed content": changed,
    "a header with a wrong sum": broken_checksum,
    "cut within a file": lambda: MODEL.content[:2000],
    "cut within a header": lambda: MODEL.content[:100],
    "no end": lambda: MODEL.content.rstrip(b"\0"),
    "something after its end": lambda: packed(members(), tail=b"#!/bin/sh\n"),
    "nothing": lambda: b"\0" * 1024,
    "no tar": lambda: b"PK" + bytes(range(256)) * 10,
}


@pytest.mark.attack
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tar_that_is_not_exactly_a_model_is_refused_whole(
    store: Store, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    target = put(store, MODEL, make())
    with pytest.raises(UpdateRefused) as caught:
        store.add(target)
    assert caught.value.refusal is Refusal.MALFORMED
    assert not store.has(target.sha256)
    store.sweep(())
    assert not list((tmp_path / "artifacts").iterdir())


def test_a_model_that_calls_itself_otherwise_than_was_signed(store: Store) -> None:
    target = put(store, MODEL, model_artifact(4).content)
    with pytest.raises(UpdateRefused, match="release 4"):
        store.add(target)


def test_a_policy_that_is_none(store: Store) -> None:
    target = put(store, POLICY, b"format = 9")
    with pytest.raises(UpdateRefused) as caught:
        store.add(target)
    assert caught.value.refusal is Refusal.MALFORMED
