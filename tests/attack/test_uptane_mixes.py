"""One attack on updates after another, by whoever holds the server or the line: mixtures, roots, time, lines.

The docstring of each test is its row in docs/update-attacks.md: what is done, what it achieves, and
why no more. Where it matters most the verifier is the child that an agent starts, else the same look
in this process; always over HTTPS.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge_agent.updates import marks
from edge_agent.updates.spoken import Unreachable
from fleet_protocol.targets import Requirements, Target
from fleet_signing import image
from fleet_signing.artifacts import Artifact
from tests.support.attacking import (
    FAR,
    MODEL,
    NOW,
    child,
    described,
    give_anothers,
    otherwise,
    root_of,
    rotate,
    the,
    yard,
)
from tests.support.authority import TestAuthority
from tests.support.updating import (
    DEVICE,
    Yard,
    accepted,
    model_artifact,
    policy_artifact,
    refused,
)

__all__ = ["yard"]

pytestmark = pytest.mark.attack
# What does not belong together.


def test_the_snapshot_of_one_time_and_the_list_of_another(yard: Yard) -> None:
    """The models' list of one time under the snapshot of another (mix and match).

    Nothing.
    The snapshot says version, length and hash of each list.
    """
    path = the(yard, "image", "models.json")
    old = yard.repositories.files[path]
    yard.order(model_artifact(2))
    yard.repositories.files[the(yard, "image", "models.json")] = old
    assert refused(child(yard)) == [("tampered", MODEL.format(2))]


@pytest.mark.parametrize("place", ["director/gw-7", "image"])
def test_the_timestamp_of_one_time_and_the_snapshot_of_another(yard: Yard, place: str) -> None:
    """The snapshot of one time under the timestamp of another (mix and match).

    Nothing.
    The timestamp says version, length and hash of the snapshot.
    """
    old = yard.repositories.files[the(yard, place, "snapshot.json")]
    yard.order(model_artifact(2))
    yard.repositories.files[the(yard, place, "snapshot.json")] = old
    assert refused(yard.look()) == [("tampered", place.split("/", maxsplit=1)[0])]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda one: otherwise(one, length=one.target.length + 1), "disagreement"),
        (lambda one: otherwise(one, sha256="0" * 64), "disagreement"),
        (lambda one: described(one, version="9").target, "disagreement"),
        (lambda one: described(one, requires=Requirements(machines=("any",))).target, "disagreement"),
        (lambda one: described(one, release=7).target, "malformed"),
        (lambda one: described(one, release=7, name="other").target, "malformed"),
    ],
    ids=["length", "hash", "version", "hardware", "release", "name"],
)
def test_the_two_repositories_disagree(
    yard: Yard, change: Callable[[Artifact], Target], refusal: str
) -> None:
    """The director tells another length, hash, version, hardware, release or name than was published.

    Nothing.
    All that both say of an artifact must be the same, to the last field; its path is made of it.
    """
    two = model_artifact(2)
    yard.repositories.publish(two)
    yard.repositories.direct(DEVICE, change(two))
    assert refused(yard.look()) == [(refusal, MODEL.format(2))]


def test_a_published_artifact_under_anothers_name(yard: Yard) -> None:
    """The bytes of a published artifact, ordered under the name of another.

    Nothing.
    The image repository vouches for names, not only for bytes.
    """
    one = model_artifact(1)
    named = msgspec.structs.replace(one.target.description, name="pressure_leak")
    path = "models/pressure_leak/1.tar"
    yard.repositories.direct(DEVICE, replace(one.target, path=path, description=named))
    assert refused(yard.look()) == [("not_published", path)]


def test_an_artifact_that_nobody_published(yard: Yard) -> None:
    """The director alone, stolen, orders what nobody published (arbitrary software).

    Nothing.
    Only the image repository, signed offline, says what exists.
    """
    forged = model_artifact(2)
    yard.repositories.direct(DEVICE, forged.target)
    assert refused(child(yard)) == [("not_published", MODEL.format(2))]


def test_a_policy_that_acts_signed_by_one(yard: Yard) -> None:
    """The `policies` key and the server, stolen, publish a policy that acts.

    Nothing.
    What acts has a path of its own, which only the role with two holders signs.
    """
    acting = described(policy_artifact(2), actuates=True)
    path = "policies/watch/2.toml"
    lying = Artifact(otherwise(acting, path=path), acting.content)
    repositories = yard.repositories
    signers = repositories.offline.roles["policies"]
    repositories.roles["policies"] = image.add(repositories.roles["policies"], lying.target, signers, NOW)
    repositories.release()
    repositories.direct(DEVICE, lying.target)
    assert refused(yard.look()) == [("malformed", path)]


def test_two_releases_of_one_name(yard: Yard) -> None:
    """Two releases of one artifact are ordered at once.

    Nothing; other orders of the set are carried out.
    Neither is taken: which of them it shall be is not the device's to choose.
    """
    policy = policy_artifact(1)
    yard.order(model_artifact(2), model_artifact(3), policy)
    said = yard.look()
    assert [refusal for refusal, _scope in refused(said)] == ["malformed", "malformed"]
    assert accepted(said) == [policy.target.path]


def test_a_path_out_of_its_folder(yard: Yard) -> None:
    """A target whose path leads out of the folder.

    Nothing; other orders of the set are carried out.
    A path is made of kind, name and release; the device never makes a file name of it.
    """
    two, policy = model_artifact(2), policy_artifact(1)
    yard.repositories.publish(policy)
    path = "models/../../../../etc/cron.d/2.tar"
    yard.repositories.direct(DEVICE, otherwise(two, path=path), policy.target)
    said = yard.look()
    assert refused(said) == [("malformed", path)]
    assert accepted(said) == [policy.target.path]


def test_more_orders_than_a_device_takes(yard: Yard) -> None:
    """A director's set with more targets than a device may have.

    Nothing.
    The set is refused as a whole before any target is looked at.
    """
    many = [described(model_artifact(1), name=f"m{number}").target for number in range(129)]
    many = [replace(each, path=f"models/{each.description.name}/1.tar") for each in many]
    yard.repositories.direct(DEVICE, *many)
    assert refused(yard.look()) == [("malformed", "director")]


# The wrong place.


def test_anothers_set(yard: Yard) -> None:
    """The director's set of another device, newer than one's own (wrong device).

    Nothing; one's own is taken again as soon as it is offered.
    The set names its device; another's is not even remembered, so its version keeps nothing out.
    """
    own = dict(yard.repositories.files)
    (target,) = yard.order(model_artifact(2))
    own = dict(yard.repositories.files)
    yard.repositories.direct("gw-8", target, version=FAR)
    give_anothers(yard, "gw-8")
    assert refused(child(yard)) == [("wrong_device", "director")]
    yard.repositories.files.update(own)
    assert accepted(yard.look()) == [target.path]


def test_another_boards_artifact(yard: Yard) -> None:
    """A published artifact for other hardware is ordered (wrong hardware).

    Nothing is fetched.
    What it requires is signed offline and compared with the board before the download.
    """
    two = described(model_artifact(2), requires=Requirements(machines=("pdp11",)))
    yard.order(two)
    assert refused(child(yard)) == [("wrong_hardware", MODEL.format(2))]
    assert yard.server
    assert not yard.server.ranges(".2.tar")


def test_the_images_key_speaks_for_the_director(yard: Yard) -> None:
    """The image repository's key on the server signs in the director's place.

    Nothing.
    Each root names the keys of its own repository.
    """
    yard.repositories.publish(model_artifact(2))
    yard.repositories.direct(DEVICE, model_artifact(2).target, signer=yard.repositories.online.image)
    assert refused(yard.look()) == [("forged", "director")]


def test_one_repository_in_the_others_place(yard: Yard) -> None:
    """The director's metadata is served as the image repository's.

    Nothing.
    Each repository has a pinned root of its own, with other keys.
    """
    files = yard.repositories.files
    yard.order(model_artifact(2))
    for path in [path for path in files if path.startswith("director/gw-7") and "root" not in path]:
        files[path.replace("director/gw-7", "image")] = files[path]
    assert refused(yard.look()) == [("forged", "image")]


# Roots.


def test_a_root_of_strangers(yard: Yard) -> None:
    """A new root that names other keys, signed by them and by one stolen root key.

    Nothing.
    A root must be signed by two of the keys that the root before it names.
    """
    one = yard.repositories.offline.root[0]
    yard.repositories.files["image/metadata/2.root.json"] = root_of(yard, 2, one)
    yard.order(model_artifact(2))
    assert refused(child(yard)) == [("forged", "image")]


def test_a_root_that_skips_a_version(yard: Yard) -> None:
    """A root of a version other than the next one, signed by enough keys.

    Nothing.
    Roots are taken one by one, each with the next number.
    """
    two = yard.repositories.offline.root[:2]
    yard.repositories.files["image/metadata/2.root.json"] = root_of(yard, 9, *two)
    yard.order(model_artifact(2))
    assert refused(yard.look()) == [("replayed", "image")]


# Numbers that run ahead, and clocks.


@pytest.mark.parametrize("place", ["image", "director"])
def test_numbers_that_run_far_ahead(yard: Yard, place: str) -> None:
    """A thief of the server's keys signs the highest versions there are (fast forward).

    Updates stand still until the keys are rotated; then they go on, with numbers as before.
    Where a new root names other keys for the server, its versions begin anew.
    """
    repositories = yard.repositories
    before = dict(repositories.files), repositories._snapshot
    if place == "director":
        repositories.direct(DEVICE, model_artifact(1).target, version=FAR)
    else:
        repositories._snapshot = FAR
        repositories.release()
    assert not refused(yard.look())
    repositories.files.clear()
    repositories.files.update(before[0])
    repositories._snapshot = before[1]
    repositories.versions[DEVICE] = 1
    yard.order(model_artifact(2))
    assert refused(yard.look()) == [("replayed", place)]
    rotate(yard)
    repositories.release()
    repositories.direct(DEVICE, model_artifact(2).target, version=5)
    said = child(yard)
    assert (refused(said), accepted(said)) == ([], [MODEL.format(2)])


def test_a_clock_in_1970(yard: Yard) -> None:
    """The device's clock is set to 1970, to bring expired metadata into force.

    Nothing.
    No time before the agent's build, or before the last good look, is believed.
    """
    yard.look()
    yard.repositories.at = NOW - dt.timedelta(days=31)
    yard.order(model_artifact(2))
    assert refused(yard.look(now_ms=0, check_dates=False)) == [("expired", "director")]
    assert refused(yard.look(now_ms=1)) == [("expired", "director")]


def test_a_clock_in_2099(yard: Yard) -> None:
    """The device's clock is set to 2099, to make everything expire.

    Nothing is accepted for as long as the clock stands there, and no longer; what runs goes on.
    A time at which metadata was refused is not remembered.
    """
    yard.order(model_artifact(2))
    before = marks.load(yard.updates)
    assert refused(yard.look(now_ms=4_070_908_800_000)) == [("expired", "director")]
    assert marks.load(yard.updates) == before
    assert accepted(yard.look()) == [MODEL.format(2)]


# The line, and the stick.


def test_a_server_of_another_authority(yard: Yard, tmp_path: Path) -> None:
    """Somebody on the line answers in the server's place.

    What breaking the line does.
    The server's certificate must be of the fleet's authority.
    """
    yard.order(model_artifact(2))
    (said,) = yard.look(ca=str(TestAuthority(tmp_path / "other").ca))
    assert isinstance(said, Unreachable)
    assert "certificate" in said.detail


def test_a_redirection(yard: Yard) -> None:
    """The server sends the device elsewhere.

    Nothing.
    Redirections are not followed.
    """
    assert yard.server
    yard.order(model_artifact(2))
    yard.server.status["director/gw-7/metadata/timestamp.json"] = 302
    (said,) = yard.look()
    assert isinstance(said, Unreachable)
    assert "302" in said.detail


def test_an_old_stick(yard: Yard, tmp_path: Path) -> None:
    """A stick that was made before what the device knows is put in.

    Nothing.
    A stick goes through the same verifier, and the same memory.
    """
    stick = yard.bundle(tmp_path / "stick.tar")
    yard.order(model_artifact(2))
    yard.look()
    assert refused(yard.look(url="", bundle=str(stick))) == [("replayed", "director")]
