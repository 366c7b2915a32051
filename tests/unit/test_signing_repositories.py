"""What signing makes, judged by python-tuf's own client: the image repository and each director's."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tuf.api.exceptions import (
    BadVersionNumberError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from fleet_protocol.targets import Kind, Target, parse, path_of
from fleet_signing import artifacts, ceremony, director, image, keys, lists
from fleet_signing.errors import MetadataError, ReleaseError
from fleet_signing.metadata import decode, encode, now, seal, target_file
from tests.support.repositories import Repositories, client, policy


@pytest.fixture
def repositories() -> Repositories:
    return Repositories()


def seen(folder: Path, repositories: Repositories, target: Target, device: str = "") -> Target | None:
    """What a client that refreshes finds under the path of ``target``."""
    where = (
        (repositories.director_root, f"director/{device}") if device else (repositories.image_root, "image")
    )
    updater = client(folder, repositories.files, *where)
    updater.refresh()
    found = updater.get_targetinfo(target.path)
    return parse(found.path, found.length, found.hashes, found.custom) if found else None


def test_a_published_artifact_is_found_and_its_bytes_arrive(
    repositories: Repositories, tmp_path: Path
) -> None:
    artifact = policy()
    target = repositories.publish(artifact)
    updater = client(tmp_path, repositories.files, repositories.image_root)
    updater.refresh()
    found = updater.get_targetinfo(target.path)
    assert found is not None
    assert Path(updater.download_target(found)).read_bytes() == artifact.content
    assert parse(found.path, found.length, found.hashes, found.custom) == target
    assert updater.get_targetinfo("policies/leak/2.toml") is None


def test_the_director_names_the_device_and_the_image_repository_does_not(
    repositories: Repositories, tmp_path: Path
) -> None:
    target = repositories.publish(policy())
    repositories.direct("gw-1", target)
    ordered = seen(tmp_path / "director", repositories, target, "gw-1")
    assert ordered is not None
    assert ordered.description.device == "gw-1"
    assert seen(tmp_path / "image", repositories, target) == target


def test_nothing_for_a_device_is_signed_too_and_names_it(repositories: Repositories, tmp_path: Path) -> None:
    target = repositories.publish(policy())
    signed = repositories.direct("gw-1")
    assert seen(tmp_path, repositories, target, "gw-1") is None
    assert decode(signed.targets, Targets).signed.unrecognized_fields[director.DEVICE] == "gw-1"


def test_versions_grow_and_a_device_does_not_go_back(repositories: Repositories, tmp_path: Path) -> None:
    target = repositories.publish(policy())
    repositories.direct("gw-1")
    old = dict(repositories.files)
    assert seen(tmp_path, repositories, target, "gw-1") is None
    repositories.direct("gw-1", target)
    assert seen(tmp_path, repositories, target, "gw-1") is not None
    repositories.files = old
    with pytest.raises(BadVersionNumberError):
        seen(tmp_path, repositories, target, "gw-1")


def test_an_image_repository_that_goes_back_is_refused(repositories: Repositories, tmp_path: Path) -> None:
    first = repositories.publish(policy(1))
    old = dict(repositories.files)
    second = repositories.publish(policy(2))
    assert seen(tmp_path, repositories, second) == second
    assert seen(tmp_path, repositories, first) == first
    repositories.files = old
    with pytest.raises(RepositoryError):
        seen(tmp_path, repositories, first)


def test_the_server_s_keys_alone_publish_nothing(repositories: Repositories, tmp_path: Path) -> None:
    """What a thief of the server can do: sign with what is there."""
    target = repositories.publish(policy(), repositories.online.image)
    with pytest.raises(UnsignedMetadataError):
        seen(tmp_path, repositories, target)


def test_the_director_s_key_is_not_the_image_repository_s(repositories: Repositories, tmp_path: Path) -> None:
    target = repositories.publish(policy())
    repositories.direct("gw-1", target, signer=repositories.online.image)
    with pytest.raises(UnsignedMetadataError):
        seen(tmp_path, repositories, target, "gw-1")


def test_the_key_of_policies_vouches_for_no_model(repositories: Repositories, tmp_path: Path) -> None:
    """Even where its role lists one, no client looks there."""
    model = artifacts.of_model(Path("use_cases/water_network/models/pressure_leak")).target
    signers, role = repositories.offline.roles["policies"], repositories.roles["policies"]
    repositories.roles["policies"] = image.add(role, model, signers, repositories.at)
    repositories.release()
    assert seen(tmp_path, repositories, model) is None


def many(count: int) -> dict[str, TargetFile]:
    """As many policies as a list holds them."""
    like = policy().target
    for_each = (msgspec.structs.replace(like.description, name=f"policy_{number}") for number in range(count))
    targets = (replace(like, path=path_of(each), description=each) for each in for_each)
    return {target.path: target_file(target) for target in targets}


def test_a_list_that_no_device_would_read_is_not_signed_and_a_long_one_is_noticed(
    repositories: Repositories,
) -> None:
    role, signers = repositories.roles["policies"], repositories.offline.roles["policies"]
    role.signed.targets = many(lists.LONG)
    assert not lists.is_long(role.signed)
    assert lists.is_long(image.add(role, policy().target, signers, now()).signed)
    role.signed.targets = many(14_000)
    with pytest.raises(MetadataError, match=r"policies would have \d+ bytes with 14001 artifacts"):
        image.add(role, policy().target, signers, now())


@pytest.mark.parametrize("device", ["", "gw-1"])
def test_what_has_expired_is_refused(tmp_path: Path, device: str) -> None:
    repositories = Repositories(now() - timedelta(days=31))
    target = repositories.publish(policy())
    repositories.direct("gw-1", target)
    with pytest.raises(ExpiredMetadataError):
        seen(tmp_path, repositories, target, device)


def test_two_of_three_root_keys_make_a_new_root_and_one_does_not(
    repositories: Repositories, tmp_path: Path
) -> None:
    target = repositories.publish(policy())
    again = ceremony.hold(repositories.offline, repositories.online.public, now(), repositories.current)
    newest = again.image_roots[-1].signed
    for signers, is_taken in ((repositories.offline.root[1:], True), (repositories.offline.root[:1], False)):
        repositories.files["image/metadata/2.root.json"] = encode(seal(newest, signers))
        if is_taken:
            assert seen(tmp_path / "two", repositories, target) == target
        else:
            with pytest.raises(UnsignedMetadataError):
                seen(tmp_path / "one", repositories, target)


def test_a_lost_root_key_is_replaced_and_devices_follow(repositories: Repositories, tmp_path: Path) -> None:
    target = repositories.publish(policy())
    assert seen(tmp_path, repositories, target) == target
    lost, *kept = repositories.offline.root
    offline = ceremony.OfflineKeys((keys.generate(), *kept), repositories.offline.roles)
    again = ceremony.hold(offline, repositories.online.public, now(), repositories.current)
    root = again.image_roots[-1]
    assert lost.public_key.keyid not in root.signed.keys
    repositories.files["image/metadata/2.root.json"] = encode(root)
    repositories.roles |= again.roles
    repositories.release()
    assert seen(tmp_path, repositories, target) == target


def test_a_root_of_the_director_is_none_of_the_image_repository(repositories: Repositories) -> None:
    image_root = decode(repositories.image_root, Root).signed
    director_root = decode(repositories.director_root, Root).signed
    own = [signer.public_key.keyid for signer in repositories.offline.roles["targets"]]
    assert (image_root.roles["targets"].keyids, image_root.roles["targets"].threshold) == (own, 2)
    assert director_root.roles["targets"].keyids == [repositories.online.director.public_key.keyid]
    assert (image_root.roles["root"].threshold, len(image_root.roles["root"].keyids)) == (2, 3)
    assert image_root.consistent_snapshot


def test_a_release_only_grows(repositories: Repositories) -> None:
    repositories.publish(policy(2))
    for release in (1, 2):
        with pytest.raises(ReleaseError, match=f"release {release} is not above 2"):
            repositories.publish(policy(release))
    assert image.highest(repositories.roles["policies"].signed, Kind.POLICY, "leak") == 2


def test_what_is_withdrawn_is_found_no_more(repositories: Repositories, tmp_path: Path) -> None:
    target = repositories.publish(policy())
    signers = repositories.offline.roles["policies"]
    repositories.roles["policies"] = image.withdraw(repositories.roles["policies"], target, signers, now())
    repositories.release()
    assert seen(tmp_path, repositories, target) is None


def test_what_is_held_is_known_after_reading_it_again(repositories: Repositories) -> None:
    target = repositories.publish(policy())
    again: Metadata[Targets] = decode(encode(repositories.roles["policies"]), Targets)
    assert image.holds(again.signed, target)
    assert not image.holds(again.signed, policy(2).target)


def test_a_bundle_and_a_request_survive_their_files(repositories: Repositories) -> None:
    bundle = ceremony.decode_bundle(ceremony.encode_bundle(repositories.bundle))
    assert bundle == repositories.bundle
    request = ceremony.Request(repositories.online.public, bundle)
    assert ceremony.decode_request(ceremony.encode_request(request)) == request
