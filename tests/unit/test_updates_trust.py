"""What a device accepts, and what it refuses as which class: attacks and accidents on both repositories.

Everything goes over real HTTPS with a certificate of the fleet's authority, through the same look that
the child does.
"""

import datetime as dt
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jwt
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner

from edge_agent.clock import BUILD_MS
from edge_agent.updates import marks
from edge_agent.updates.spoken import Accepted, Broken, Done, Refused, Said, Unreachable
from fleet_protocol.targets import Kind, Requirements
from fleet_signing import ceremony, image
from fleet_signing.artifacts import Artifact
from fleet_signing.metadata import encode, seal
from tests.support.authority import TestAuthority
from tests.support.repositories import Repositories
from tests.support.update_server import UpdateServer
from tests.support.updating import (
    DAY_MS,
    DEVICE,
    Yard,
    accepted,
    model_artifact,
    policy_artifact,
    refused,
)

NOW = dt.datetime.fromtimestamp(BUILD_MS / 1000, dt.UTC) + dt.timedelta(days=29)
MODEL = "models/autoencoder/1.tar"


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    yard = Yard(tmp_path, authority, repositories=Repositories(NOW))
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as server:
        yard.server = server
        yield yard


def served(yard: Yard, pattern: str) -> str:
    """The path of the one served file whose path holds ``pattern``."""
    (path,) = (path for path in yard.repositories.files if pattern in path)
    return path


def latest(yard: Yard, repository: str, role: str) -> str:
    """The path of the newest metadata of a role."""
    found = [path for path in yard.repositories.files if path.startswith(repository) and role in path]
    return max(found, key=lambda path: int(path.rsplit("/", 1)[1].split(".")[0]))


def test_what_both_vouch_for_is_fetched_verified_and_remembered(yard: Yard) -> None:
    model, policy = model_artifact(1), policy_artifact(1)
    targets = yard.order(policy, model)
    said = yard.look()
    assert accepted(said) == [targets[1].path, targets[0].path]  # a policy after the model that it reads
    for each in said:
        if isinstance(each, Accepted):
            content = model.content if each.target.description.kind is Kind.MODEL else policy.content
            assert Path(each.file).read_bytes() == content
    assert isinstance(said[-1], Done)
    known = marks.load(yard.updates)
    assert known.releases == {"model/autoencoder": 1, "policy/watch": 1}
    assert set(known.repositories) == {"image", "director"}
    assert {"root", "timestamp", "snapshot", "targets", "models"} <= set(known.repositories["image"].versions)


def test_nothing_ordered_is_an_answer_too(yard: Yard) -> None:
    yard.repositories.direct(DEVICE)
    assert yard.look() == [Done([])]


def test_what_runs_is_not_fetched_again_and_what_is_under_way_is_left_alone(yard: Yard) -> None:
    (target,) = yard.order(model_artifact(1))
    assert accepted(yard.look(having=[(*target.key, target.sha256)])) == []
    assert accepted(yard.look(busy=[target.key])) == []
    assert accepted(yard.look()) == [target.path]


# Metadata of the image repository and the director, changed between server and device.


@pytest.mark.attack
def test_metadata_signed_by_a_stranger(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.repositories.direct(DEVICE, signer=CryptoSigner.generate_ed25519())
    assert refused(yard.look()) == [("forged", "director")]


@pytest.mark.attack
def test_an_artifact_published_with_a_strangers_key(yard: Yard) -> None:
    artifact = model_artifact(1)
    yard.repositories.publish(artifact, CryptoSigner.generate_ed25519())
    yard.order(artifact)
    assert refused(yard.look()) == [("forged", MODEL)]


@pytest.mark.attack
def test_a_policy_that_acts_and_only_one_of_two_has_signed(yard: Yard) -> None:
    acting = policy_artifact(1, actuates=True)
    first, second = yard.repositories.offline.roles["actuation"]
    for signers in ([first], [second], yard.repositories.offline.roles["policies"]):
        honest = dict(yard.repositories.roles)
        yard.repositories.publish(acting, *signers)
        yard.order(acting)
        assert refused(yard.look()) == [("forged", "actuation/watch/1.toml")]
        yard.repositories.roles = honest
    yard.repositories.publish(acting)
    yard.order(acting)
    assert accepted(yard.look()) == ["actuation/watch/1.toml"]


@pytest.mark.attack
def test_a_policy_that_acts_under_the_one_key_of_those_that_tell(yard: Yard) -> None:
    acting = policy_artifact(1, actuates=True).target
    sneaked = replace(acting, path="policies/watch/1.toml")
    there = yard.repositories
    there.roles["policies"] = image.add(
        there.roles["policies"], sneaked, there.offline.roles["policies"], there.at
    )
    there.release()
    there.direct(DEVICE, sneaked)
    (told,) = [each for each in yard.look() if isinstance(each, Refused)]
    assert (told.refusal, told.scope) == ("malformed", "policies/watch/1.toml")
    assert "what the role 'actuation' has to sign" in told.detail


@pytest.mark.attack
def test_a_root_that_the_old_root_keys_did_not_sign(yard: Yard) -> None:
    strangers = ceremony.OfflineKeys.generate()
    forged = ceremony.hold(strangers, yard.repositories.online.public, NOW).image_roots[-1].signed
    forged.version = 2
    yard.repositories.files["image/metadata/2.root.json"] = encode(seal(forged, strangers.root))
    yard.order(model_artifact(1))
    assert refused(yard.look()) == [("forged", "image")]


@pytest.mark.attack
def test_an_earlier_timestamp(yard: Yard) -> None:
    old = model_artifact(1)
    yard.order(old)
    before = dict(yard.repositories.files)
    yard.order(old, policy_artifact(1))
    yard.look()
    yard.repositories.files.update(
        {path: content for path, content in before.items() if path.endswith("timestamp.json")}
    )
    assert refused(yard.look()) == [("replayed", "director")]


@pytest.mark.parametrize("repository", ["image", "director"])
def test_a_lost_cache_and_a_server_that_was_rolled_back(yard: Yard, repository: str) -> None:
    old = model_artifact(1)
    yard.order(old)
    before = dict(yard.repositories.files)
    yard.order(old, policy_artifact(1))
    yard.look()
    rolled_back = {path: content for path, content in before.items() if path.startswith(repository)}
    yard.repositories.files.update(rolled_back)
    for file in (yard.updates / "metadata").rglob("*.json"):
        file.write_bytes(b"")  # what a power cut leaves of files that nobody flushed
    said = yard.look()
    assert refused(said) == [("replayed", repository)]
    assert not accepted(said)


def test_a_cache_that_is_gone_altogether_is_only_a_cache(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.look()
    shutil.rmtree(yard.updates / "metadata")
    assert len(accepted(yard.look())) == 1


def test_a_half_made_link_to_the_newest_root(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.look()
    (yard.updates / "metadata" / "image" / "root.json").unlink()
    assert len(accepted(yard.look())) == 1


def test_marks_that_cannot_be_read_stop_updates_instead_of_protection(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.updates.mkdir(parents=True)
    (yard.updates / marks.FILE_NAME).write_bytes(b"{")
    (said,) = yard.look()
    assert isinstance(said, Broken)


def test_snapshot_of_one_time_and_targets_of_another(yard: Yard) -> None:
    yard.order(model_artifact(1))
    old = yard.repositories.files[latest(yard, "image", "models.json")]
    yard.order(model_artifact(2))
    yard.repositories.files[latest(yard, "image", "models.json")] = old
    said = yard.look()
    assert refused(said) == [("tampered", "models/autoencoder/2.tar")]


def test_metadata_that_is_none(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.repositories.files["image/metadata/timestamp.json"] = b"{]"
    assert refused(yard.look()) == [("malformed", "image")]


@pytest.mark.attack
def test_metadata_without_end(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.repositories.files["image/metadata/timestamp.json"] = b" " * 100_000
    assert refused(yard.look()) == [("endless", "image")]


@pytest.mark.attack
def test_another_devices_word_is_refused_and_does_not_keep_out_our_own(yard: Yard) -> None:
    (target,) = yard.order(model_artifact(1))
    files = yard.repositories.files
    own = {path: content for path, content in files.items() if path.startswith(f"director/{DEVICE}")}
    yard.repositories.direct("gw-8", target, version=900)
    for path in [path for path in files if path.startswith("director/gw-8")]:
        files[path.replace("gw-8", DEVICE)] = files[path]
    assert refused(yard.look()) == [("wrong_device", "director")]
    files.update(own)
    assert accepted(yard.look()) == [target.path]


# Time.


@pytest.mark.parametrize("days", [31, 20 * 365], ids=["a month later", "at the end of belief"])
def test_expired_metadata_blocks_what_is_new(yard: Yard, days: int) -> None:
    yard.order(model_artifact(1))
    said = yard.look(now_ms=BUILD_MS + (29 + days) * DAY_MS)
    assert refused(said) == [("expired", "director")]


@pytest.mark.parametrize("wall", ["1970", "2099"])
def test_a_clock_that_cannot_be_believed_neither_opens_nor_closes(yard: Yard, wall: str) -> None:
    """The agent hands in 0 then; the floor is the time of the build, later that of the last look."""
    (target,) = yard.order(model_artifact(1))
    assert accepted(yard.look(now_ms=0, check_dates=False)) == [target.path]
    yard.look(now_ms=BUILD_MS + 30 * DAY_MS)
    assert marks.load(yard.updates).verified_ms == BUILD_MS + 30 * DAY_MS
    stale = Repositories(NOW - dt.timedelta(days=35))
    assert stale.at < NOW
    yard.repositories.at = NOW - dt.timedelta(days=31)
    yard.repositories.direct(DEVICE, target)
    said = yard.look(now_ms=0, check_dates=False)
    assert refused(said) == [("expired", "director")]


def test_the_floor_does_not_run_ahead_of_what_was_signed(yard: Yard) -> None:
    yard.order(model_artifact(1))
    yard.look(now_ms=BUILD_MS + 18 * 365 * DAY_MS)
    assert marks.load(yard.updates).verified_ms == 0


# The two repositories against each other, and against the device.


def test_an_order_that_nobody_published(yard: Yard) -> None:
    artifact = model_artifact(1)
    yard.repositories.direct(DEVICE, artifact.target)
    assert refused(yard.look()) == [("not_published", MODEL)]


def test_an_order_of_other_bytes_than_were_published(yard: Yard) -> None:
    yard.order(model_artifact(1))
    other = model_artifact(1, lambda each: msgspec.structs.replace(each, description="another"))
    yard.repositories.direct(DEVICE, other.target)
    assert refused(yard.look()) == [("disagreement", MODEL)]


@pytest.mark.attack
def test_mix_and_match_of_a_published_model_under_anothers_name(yard: Yard) -> None:
    one = model_artifact(1)
    yard.order(one)
    described = msgspec.structs.replace(one.target.description, name="pressure_leak")
    mixed = type(one.target)("models/pressure_leak/1.tar", one.target.length, one.target.sha256, described)
    yard.repositories.direct(DEVICE, mixed)
    assert refused(yard.look()) == [("not_published", "models/pressure_leak/1.tar")]


def requiring(requires: Requirements) -> Artifact:
    one = model_artifact(1)
    described = msgspec.structs.replace(one.target.description, requires=requires)
    return Artifact(
        type(one.target)(one.target.path, one.target.length, one.target.sha256, described), one.content
    )


@pytest.mark.parametrize(
    "requires",
    [Requirements(machines=("pdp11",)), Requirements(profiles=("raspberry-pi-5",))],
    ids=["machine", "profile"],
)
def test_another_boards_artifact_is_refused_before_it_is_fetched(yard: Yard, requires: Requirements) -> None:
    yard.order(requiring(requires))
    assert refused(yard.look()) == [("wrong_hardware", MODEL)]
    assert yard.server
    assert not yard.server.ranges(".tar")


@pytest.mark.attack
def test_a_release_below_the_highest_ever_accepted(yard: Yard) -> None:
    old, new = model_artifact(1), model_artifact(2)
    yard.repositories.publish(old)
    yard.order(new)
    assert len(accepted(yard.look())) == 1
    yard.order(old)
    assert refused(yard.look()) == [("rollback", MODEL)]
    running = [(*old.target.key, old.target.sha256)]
    assert not refused(yard.look(having=running)), "what came back by local rollback may be ordered"


def test_what_failed_here_is_refused_until_a_higher_release(yard: Yard) -> None:
    bad, mended = model_artifact(1), model_artifact(2)
    yard.order(bad)
    failed = [(*bad.target.key, bad.target.sha256)]
    assert refused(yard.look(failed=failed)) == [("failed_here", MODEL)]
    yard.order(mended)
    assert accepted(yard.look(failed=failed)) == [mended.target.path]


def test_two_releases_at_once(yard: Yard) -> None:
    yard.order(model_artifact(1), model_artifact(2))
    assert [refusal for refusal, _scope in refused(yard.look())] == ["malformed", "malformed"]


def test_an_order_that_an_older_agent_does_not_know_costs_only_itself(yard: Yard) -> None:
    model, policy = model_artifact(1), policy_artifact(1)
    yard.repositories.publish(model)
    yard.repositories.publish(policy)
    odd = type(model.target)(
        "agents/agent/1.tar", 10, "0" * 64, msgspec.structs.replace(model.target.description, name="agent")
    )
    yard.repositories.direct(DEVICE, odd, policy.target)
    said = yard.look()
    assert refused(said) == [("malformed", "agents/agent/1.tar")]
    assert accepted(said) == [policy.target.path]


# Rotation.


def test_after_new_online_keys_versions_may_begin_anew(yard: Yard) -> None:
    (target,) = yard.order(model_artifact(1))
    yard.repositories.direct(DEVICE, target, version=2_000_000_000)  # a thief's number
    yard.look()
    repositories = yard.repositories
    online = ceremony.OnlineKeys.generate()
    so_far = replace(repositories.bundle, roles=repositories.roles)
    renewed = ceremony.hold(repositories.offline, online.public, NOW, so_far)
    repositories.online, repositories.bundle = online, renewed
    repositories.roles |= renewed.roles
    repositories.files["image/metadata/2.root.json"] = encode(renewed.image_roots[-1])
    repositories.release()
    repositories.direct(DEVICE, target, version=5)
    said = yard.look()
    assert refused(said) == [], said
    assert accepted(said) == [target.path]
    assert marks.load(yard.updates).repositories["director"].versions["timestamp"] == 5


# The line.


@pytest.mark.attack
def test_a_server_of_another_authority_is_not_reached(yard: Yard, tmp_path: Path) -> None:
    yard.order(model_artifact(1))
    (said,) = yard.look(ca=str(TestAuthority(tmp_path / "other").ca))
    assert isinstance(said, Unreachable)
    assert "certificate" in said.detail


def test_dates_of_a_certificate_are_looked_at_only_with_a_clock_that_can_be_believed(
    yard: Yard, authority: TestAuthority
) -> None:
    (target,) = yard.order(model_artifact(1))
    expired = authority.issue("old", begins=dt.timedelta(days=-9), ends=dt.timedelta(days=-1))
    with UpdateServer(expired, yard.repositories.files) as server:
        (said,) = yard.look(url=server.url)
        assert isinstance(said, Unreachable)
        assert accepted(yard.look(url=server.url, now_ms=0, check_dates=False)) == [target.path]


def test_nobody_listens(yard: Yard) -> None:
    (said,) = yard.look(url="https://127.0.0.1:9/v1/updates")
    assert isinstance(said, Unreachable)


def test_it_proves_itself_once_a_look_and_for_the_directors_word_alone(
    yard: Yard, authority: TestAuthority
) -> None:
    server = yard.server
    assert server
    server.private = True
    mine = authority.issue(DEVICE)
    (target,) = yard.order(model_artifact(1))
    (said,) = yard.look()
    assert isinstance(said, Unreachable)
    assert "401" in said.detail
    files = {"certificate": str(mine.certificate), "key": str(mine.key)}
    base = server.url.removesuffix("/v1/updates")
    assert accepted(yard.look(server=base, **files)) == [target.path]
    (signed,) = server.proved
    certificate = x509.load_pem_x509_certificate(mine.certificate.read_bytes())
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    claims = jwt.decode(signed, public, ["ES256"], audience=f"{base}/v1/device/token")
    assert (claims["iss"], claims["sub"], claims["nonce"]) == (DEVICE, DEVICE, "n")
    assert jwt.get_unverified_header(signed)["kid"] == f"{certificate.serial_number:x}"
    shown = {path.split("/")[0] for path, token in server.shown if token}
    assert shown == {"director"}


def test_a_server_that_gives_no_token_is_tried_again_later(yard: Yard, authority: TestAuthority) -> None:
    yard.order(model_artifact(1))
    mine = authority.issue(DEVICE)
    files = {"certificate": str(mine.certificate), "key": str(mine.key)}
    (said,) = yard.look(server="https://127.0.0.1:9", **files)
    assert isinstance(said, Unreachable)
    (said,) = yard.look(server="https://127.0.0.1:9", certificate="none.pem", key=str(mine.key))
    assert isinstance(said, Unreachable)
    assert "enroll" in said.detail


# A stick.


def test_a_bundle_goes_through_the_same_verifier(yard: Yard, tmp_path: Path) -> None:
    (target,) = yard.order(model_artifact(1))
    stick = yard.bundle(tmp_path / "stick.tar")
    assert accepted(yard.look(url="", bundle=str(stick))) == [target.path]
    yard.order(model_artifact(2))
    yard.look()
    said = yard.look(url="", bundle=str(stick))
    assert refused(said) == [("replayed", "director")]


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200], ids=["empty", "no tar"])
def test_a_bundle_that_is_none(yard: Yard, tmp_path: Path, content: bytes) -> None:
    stick = tmp_path / "stick.tar"
    stick.write_bytes(content)
    (said,) = yard.look(url="", bundle=str(stick))
    assert isinstance(said, Unreachable)


def test_the_agent_itself_never_imports_python_tuf() -> None:
    code = (
        "import sys, edge_agent.agent, edge_agent.models, edge_agent.updates.command;"
        "print('tuf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_said_lines_survive_the_way_between_the_processes(yard: Yard) -> None:
    from edge_agent.updates.spoken import ENCODER, SAID_DECODER

    yard.order(model_artifact(1))
    yard.repositories.direct(DEVICE, model_artifact(1).target, policy_artifact(1).target)
    said: list[Said] = yard.look()
    assert [SAID_DECODER.decode(ENCODER.encode(each)) for each in said] == said


def test_a_look_with_nothing_new_is_few_requests_over_one_connection(yard: Yard) -> None:
    (target,) = yard.order(model_artifact(1))
    having = [(*target.key, target.sha256)]
    yard.look(having=having)
    assert yard.server
    yard.server.asked.clear()
    yard.server.connections = 0
    yard.look(having=having)
    assert [path.rsplit("/", 1)[1] for path, _range in yard.server.asked] == [
        "2.root.json", "timestamp.json", "2.root.json", "timestamp.json",
    ]  # fmt: skip
    assert yard.server.connections == 1
