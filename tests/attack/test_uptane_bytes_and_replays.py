"""One attack on updates after another, by whoever holds the server or the line: bytes and replays.

The docstring of each test is its row in docs/update-attacks.md: what is done, what it achieves, and
why no more. Where it matters most the verifier is the child that an agent starts, else the same look
in this process; always over HTTPS.
"""

import pytest

from edge_agent.clock import BUILD_MS
from edge_agent.updates import source
from edge_agent.updates.spoken import Unreachable
from tests.support.attacking import FAR, MODEL, child, give_anothers, put_back, served, yard
from tests.support.updating import (
    DAY_MS,
    DEVICE,
    Yard,
    accepted,
    model_artifact,
    refused,
)

__all__ = ["yard"]

pytestmark = pytest.mark.attack


# Bytes.


def test_other_bytes_under_a_published_name(yard: Yard) -> None:
    """Other bytes of the same length in place of a published artifact.

    Nothing; the device goes on asking.
    The signed SHA-256 is that of other bytes.
    """
    yard.order(model_artifact(2))
    path = served(model_artifact(2))
    content = yard.repositories.files[path]
    yard.repositories.files[path] = content[:-1] + b"x"
    assert refused(child(yard)) == [("tampered", MODEL.format(2))]
    assert not (yard.updates / "downloads" / model_artifact(2).target.sha256).exists()


def test_a_shorter_artifact(yard: Yard) -> None:
    """An artifact that is shorter than what was signed.

    Nothing.
    The length is signed, and the announced one is compared before anything is written.
    """
    yard.order(model_artifact(2))
    path = served(model_artifact(2))
    yard.repositories.files[path] = yard.repositories.files[path][:1000]
    assert refused(child(yard)) == [("tampered", MODEL.format(2))]


def test_an_artifact_without_end(yard: Yard) -> None:
    """An artifact that never ends.

    No more than the signed length is taken, once a look.
    Reading ends one piece after the signed length; no more than that is ever written.
    """
    yard.order(model_artifact(2))
    assert yard.server
    yard.server.endless.add(served(model_artifact(2)))
    assert refused(child(yard)) == [("endless", MODEL.format(2))]
    length = model_artifact(2).target.length
    assert all(file.stat().st_size <= length for file in (yard.updates / "downloads").iterdir())


@pytest.mark.parametrize("place", ["director/gw-7", "image"])
def test_metadata_without_end(yard: Yard, place: str) -> None:
    """Metadata that never ends, of either repository.

    Nothing; the look ends.
    Each role has a limit, and behind the timestamp each length is signed.
    """
    assert yard.server
    yard.server.endless.add(f"{place}/metadata/timestamp.json")
    (found,) = refused(child(yard))
    assert found == ("endless", place.split("/", maxsplit=1)[0])


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_metadata_beyond_its_limit(yard: Yard, role: str) -> None:
    """Metadata of any role, larger than its limit, rightly signed or not.

    Nothing; the look ends.
    The limits are the verifier's own; none is told by the repository.
    """
    yard.order(model_artifact(2))
    place = "director/gw-7/metadata/"
    number = {"root": "2.", "timestamp": ""}.get(role, f"{yard.repositories.versions[DEVICE]}.")
    yard.repositories.files[f"{place}{number}{role}.json"] = b" " * 6_000_000
    assert refused(yard.look()) == [("endless", "director")]


@pytest.mark.parametrize(
    "content", [b"", b"{]", b"[" * 16_000, b'{"signed":{},"signatures":[]}', b"\xff" * 99]
)
def test_metadata_that_is_none(yard: Yard, content: bytes) -> None:
    """Metadata that is no metadata: empty, broken, nested thousands deep.

    Nothing; the look ends.
    What does not parse is refused; the verifier is a process of its own, which may even die of it.
    """
    yard.repositories.files["director/gw-7/metadata/timestamp.json"] = content
    assert refused(child(yard)) == [("malformed", "director")]


def test_metadata_that_drips(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that comes a byte at a time (slow retrieval).

    The look ends after two minutes, is told as unreachable, and tried again.
    A document has a time within which it must be here; silence has a shorter one.
    """
    monkeypatch.setattr(source, "ANSWER_S", 0.2)
    assert yard.server
    yard.server.drip_s["director/gw-7/metadata/timestamp.json"] = 0.05
    (said,) = yard.look()
    assert isinstance(said, Unreachable)
    assert "too slowly" in said.detail


# What was true once.


@pytest.mark.parametrize(("start", "scope"), [("director", "director"), ("image", "image")])
def test_a_repository_is_rolled_back(yard: Yard, start: str, scope: str) -> None:
    """All metadata of one repository as it was before (rollback), be it by a restored backup.

    Nothing new is accepted until versions grow beyond what was seen; what runs goes on.
    The highest version of each role is remembered.
    """
    before = dict(yard.repositories.files)
    yard.order(model_artifact(2))
    yard.look()
    put_back(yard, before, start)
    assert refused(child(yard)) == [("replayed", scope)]


@pytest.mark.parametrize("start", ["director", "image"])
@pytest.mark.parametrize("left", [b"", None], ids=["truncated", "gone"])
def test_a_repository_is_rolled_back_after_a_power_cut(yard: Yard, start: str, left: bytes | None) -> None:
    """The same, after a power cut has emptied or removed the cache of metadata.

    The same.
    The versions are remembered a second time, flushed before what they protect is used.
    """
    before = dict(yard.repositories.files)
    yard.order(model_artifact(2))
    yard.look()
    put_back(yard, before, start)
    for file in list((yard.updates / "metadata").rglob("*.json")):
        file.unlink() if left is None else file.write_bytes(left)
    assert refused(child(yard)) == [("replayed", start)]


def test_an_old_empty_set(yard: Yard) -> None:
    """An empty set of targets, signed for this device before, in place of an order.

    Nothing.
    The empty set has a version too, and a lower one.
    """
    yard.repositories.direct(DEVICE)
    before = dict(yard.repositories.files)
    yard.look()
    yard.order(model_artifact(2))
    assert accepted(yard.look()) == [MODEL.format(2)]
    put_back(yard, before, "director")
    assert refused(child(yard)) == [("replayed", "director")]


def test_an_empty_set_of_another_device(yard: Yard) -> None:
    """The empty set of a device that is ordered nothing, in place of an order.

    Nothing.
    The empty set names its device, too.
    """
    yard.repositories.direct("gw-8", version=FAR)
    give_anothers(yard, "gw-8")
    assert refused(child(yard)) == [("wrong_device", "director")]


def test_news_are_held_back(yard: Yard) -> None:
    """Everything is held back as it is (freeze).

    Devices stay on what they have for up to 30 days without telling; then they tell that it expired.
    What is held back is in force until it expires; more than that a signature cannot do.
    """
    before = dict(yard.repositories.files)
    yard.order(model_artifact(2))
    yard.repositories.files.clear()
    yard.repositories.files.update(before)
    assert not refused(yard.look())
    assert refused(yard.look(now_ms=BUILD_MS + 61 * DAY_MS)) == [("expired", "director")]


def test_an_old_release_is_ordered_anew(yard: Yard) -> None:
    """The director orders a published release below what was accepted (downgrade).

    Nothing.
    The highest release ever accepted is remembered, and only a higher one replaces it.
    """
    old = model_artifact(1)
    yard.order(model_artifact(2))
    yard.look()
    yard.order(old)
    assert refused(child(yard)) == [("rollback", MODEL.format(1))]
