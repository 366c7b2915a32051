"""Signed updates on a real server: from nothing to a device that verifies, and everything that is refused."""

import json
import shutil
import signal
import ssl
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from fleet_protocol.manifest import encode
from fleet_protocol.manifest import parse as parse_manifest
from fleet_protocol.targets import MAX_ARTIFACT, parse
from fleet_server.config import load
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import Proposal
from fleet_signing import artifacts, ceremony, image, keys
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import now, seal
from tests.support.fleet_server import approve_waiting, fleet
from tests.support.repositories import policy
from tests.support.update_place import (
    MODEL,
    PASSPHRASE,
    Place,
    announced,
    endless,
    listing,
    model,
    post,
    put,
    ready,
)
from tests.support.waiting import wait_until
from tests.unit.test_agent_builds import ARGAN, NATIVE, wheel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all tests here; each publishes under a name of its own."""
    with ready(tmp_path_factory.mktemp("place")) as place:
        yield place


def test_from_publishing_to_a_device_that_verifies_both_repositories(place: Place, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", "journey")
    said = json.loads(place.fleet("publish", "model", folder, "--keys", place.keys, "--json"))
    assert said["path"] == "models/journey/1.tar"
    assert "journey" in place.fleet("artifact", "list")
    device = tmp_path / "gw"
    place.fleet("device", "add", "gw-journey", "--out", device)
    place.agreed("assign", "gw-journey", "model", "journey", "1")

    token = place.token(device)
    seen = tmp_path / "director"
    director = place.client("director/gw-journey", device / "director-root.json", seen, token)
    director.refresh()
    ordered = director.get_targetinfo(said["path"])
    assert ordered is not None
    target = parse(ordered.path, ordered.length, ordered.hashes, ordered.custom)
    assert (target.description.device, target.sha256) == ("gw-journey", said["sha256"])
    updater = place.client("image", device / "image-root.json", tmp_path / "image")
    updater.refresh()
    vouched = updater.get_targetinfo(said["path"])
    assert vouched is not None
    content = Path(updater.download_target(vouched)).read_bytes()
    assert content == artifacts.of_model(folder).content
    early = place.token(place.folder / "gw-early")
    seen = tmp_path / "other"
    other = place.client("director/gw-early", device / "director-root.json", seen, early)
    other.refresh()
    assert other.get_targetinfo(said["path"]) is None, "its set is empty, and signed"


def test_a_device_from_before_the_ceremony_gets_its_roots_by_hand(place: Place) -> None:
    folder = place.folder / "gw-early"
    assert "# [updates]" in (folder / "agent.toml").read_text()
    assert not (folder / "image-root.json").exists()
    section = place.fleet("key", "roots", "--out", folder)
    assert section.startswith("[updates]\nurl = ")
    assert json.loads((folder / "image-root.json").read_text())["signed"]["_type"] == "root"
    assert json.loads((folder / "director-root.json").read_text())["signed"]["_type"] == "root"


def test_a_download_is_gone_on_with_as_long_as_it_is_the_same(place: Place, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", "resumed")
    place.fleet("publish", "model", folder, "--keys", place.keys)
    artifact = artifacts.of_model(folder)
    url = f"/image/targets/{image.served_path(artifact.target)}"
    with place.devices() as client:
        whole = client.get(url)
        assert whole.content == artifact.content
        tag = whole.headers["ETag"]
        assert tag == f'"{artifact.target.sha256}"'
        rest = client.get(url, headers={"Range": "bytes=1000-", "If-Range": tag})
        assert (rest.status_code, rest.content) == (206, artifact.content[1000:])
        assert rest.headers["Content-Range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
        changed = client.get(url, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
        assert (changed.status_code, changed.content) == (200, artifact.content)
        beyond = client.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
        assert beyond.status_code == 416
        assert client.head(url).headers["Content-Length"] == str(len(whole.content))


def test_metadata_that_has_not_changed_is_not_sent_again(place: Place) -> None:
    with place.devices() as client:
        client.headers["Authorization"] = f"Bearer {place.token(place.folder / 'gw-early')}"
        for path in ("/image/metadata/timestamp.json", "/director/gw-early/metadata/timestamp.json"):
            tag = client.get(path).headers["ETag"]
            again = client.get(path, headers={"If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")
            assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.attack
@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1/devices", "/v1/updates/keys", "/openapi.json", "/image/metadata/../../keys/image.key",
        "/image/metadata/..%2f..%2fkeys%2fimage.key", "/image/metadata/lock", "/image/metadata/9.root.json",
        "/image/targets/models/x/" + "0" * 64 + ".1.tar", "/image/targets/..%2f..%2fpending.json",
        "/image/targets/models/../../../api.token",
        "/director/gw-early/metadata/1.targets.json",
        "/director/gw-early/metadata/" + "9" * 40 + ".targets.json",
    ],
)  # fmt: skip
def test_devices_are_given_nothing_else(place: Place, path: str) -> None:
    with place.devices() as client:
        client.headers["Authorization"] = f"Bearer {place.token(place.folder / 'gw-early')}"
        assert client.get(path).status_code == 404
        assert client.post(path).status_code in {404, 405}


@pytest.mark.attack
@pytest.mark.parametrize("device", ["gw-unknown", "..%2f..%2fkeys", "GW-EARLY", "gw-journey", ""])
def test_a_device_is_given_its_own_orders_alone(place: Place, device: str) -> None:
    with place.devices() as client:
        path = f"/director/{device}/metadata/timestamp.json"
        stranger = client.get(path)
        client.headers["Authorization"] = f"Bearer {place.token(place.folder / 'gw-early')}"
        other = client.get(path)
    expected = (401, 403) if device.replace("-", "").isalpha() else (404, 404)
    assert (stranger.status_code, other.status_code) == expected


def test_the_listener_shows_the_fleet_s_certificate_and_no_stranger_accepts_it(place: Place) -> None:
    url = place.server.endpoints["device_url"]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(url, trust_env=False)
    address = url.replace("localhost", "127.0.0.1")
    context = ssl.create_default_context(cafile=place.server.endpoints["ca"])
    assert httpx.get(address, verify=context, trust_env=False).status_code == 404


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("models/wrong_name/1.tar", 422), ("models/pressure_leak/2.tar", 422),
        ("policies/pressure_leak/1.toml", 422),
        ("models/../../keys/image.key", 413), ("models/..%2f..%2fkeys%2fimage.key", 422),
        ("other/pressure_leak/1.tar", 404), ("%2fetc%2fpasswd", 404), ("models/pressure_leak/1.tar%00", 422),
    ],
)  # fmt: skip
def test_bytes_under_another_path_than_their_own_are_refused(place: Place, path: str, status: int) -> None:
    before = listing(place)
    answer = put(place, path, artifacts.of_model(MODEL).content)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "message", "next_step"}
    assert listing(place) == before


@pytest.mark.attack
@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 10240, b"\x1f\x8b" + b"x" * 100])
def test_foreign_content_is_refused_and_nothing_stays(place: Place, content: bytes) -> None:
    before = listing(place)
    for path in ("models/pressure_leak/1.tar", "policies/leak/1.toml"):
        assert put(place, path, content).status_code == 422
    assert listing(place) == before


@pytest.mark.attack
def test_too_much_is_refused_said_or_unsaid(place: Place) -> None:
    before = listing(place)
    assert announced(place, MAX_ARTIFACT + 1) == 413
    with place.server.client() as client:
        unsaid = client.put("/v1/artifacts/models/x/1.tar", content=endless())
        assert (unsaid.status_code, unsaid.json()["code"]) == (413, "too_large")
        long = client.post("/v1/updates/metadata", content=b" " * (ceremony.MAX_BUNDLE + 1))
        assert (long.status_code, long.json()["code"]) == (413, "too_large")
    assert listing(place) == before


@pytest.mark.attack
def test_metadata_that_is_not_signed_by_its_key_is_refused(place: Place) -> None:
    artifact = policy(7)
    assert put(place, artifact.target.path, artifact.content).status_code == 200
    server_key = keys.read_open(place.server.data / "updates" / "keys" / "image.key")
    for signers in ((), (keys.generate(),), (server_key,), (place.signer("models"),)):
        answer = post(place, place.vouching(artifact, *signers))
        assert (answer.status_code, answer.json()["code"]) == (422, "refused")
        assert "not signed by enough of its keys" in answer.json()["message"]
    assert artifact.target.path not in place.published().roles["policies"].signed.targets


def test_metadata_before_its_bytes_is_refused(place: Place, tmp_path: Path) -> None:
    artifact = artifacts.of_model(model(tmp_path / "model", "no_bytes"))
    answer = post(place, place.vouching(artifact, place.signer("models")))
    assert answer.status_code == 422
    assert "are not here; upload them before the metadata" in answer.json()["message"]


@pytest.mark.attack
def test_a_lower_version_is_refused_and_the_same_again_is_not(place: Place, tmp_path: Path) -> None:
    old = ceremony.encode_bundle(Bundle((), (), {"models": place.published().roles["models"]}))
    assert post(place, old).status_code == 200
    place.fleet("publish", "model", model(tmp_path / "model", "lower"), "--keys", place.keys)
    answer = post(place, old)
    assert (answer.status_code, answer.json()["code"]) == (409, "stale")


def test_other_content_under_a_published_path_is_refused(place: Place, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", "fixed")
    place.fleet("publish", "model", folder, "--keys", place.keys)
    again = json.loads(place.fleet("publish", "model", folder, "--keys", place.keys, "--json"))
    assert again["path"] == "models/fixed/1.tar"
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, version="other")))
    said = place.refused("publish", "model", folder, "--keys", place.keys)
    assert "release 1 is not above 1, which is published; raise its release" in said
    changed = artifacts.of_model(folder)
    assert put(place, changed.target.path, changed.content).status_code == 409


def test_a_policy_that_its_model_does_not_answer_is_refused(place: Place, tmp_path: Path) -> None:
    place.fleet("publish", "model", model(tmp_path / "model", "answers"), "--keys", place.keys)
    text = policy(1).content.replace(b'"pressure_leak"', b'"answers"').replace(b'"leak"', b'"asks"')
    (tmp_path / "policy.toml").write_bytes(text.replace(b"score > 0.9", b"scorn > 0.9"))
    asked = ("publish", "policy", tmp_path / "policy.toml", "--keys", place.keys)
    assert "scorn" in place.refused(*asked, "--reason", "a test")
    (tmp_path / "policy.toml").write_bytes(text)
    said = place.agreed(*asked, "--model", tmp_path / "model")
    assert "policies/asks/1.toml says" in said
    assert "score > 0.9" in said
    assert "asks" in place.fleet("artifact", "list")


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b'{"format":1,"roles":{"models":{}}}', b"{" * 10_000, b"\xff\xfe"]
)
def test_what_is_no_metadata_is_refused(place: Place, document: bytes) -> None:
    for what in ("metadata", "roots"):
        answer = post(place, document, what)
        assert answer.status_code == 422, answer.text


def test_roots_come_by_a_ceremony_alone(place: Place) -> None:
    stranger = ceremony.OfflineKeys.generate()
    with place.server.client() as client:
        request = ceremony.decode_request(client.get("/v1/updates/keys").content)
    root = ceremony.hold(stranger, request.online, now()).image_roots[0].signed
    root.version = len(place.published().image_roots) + 1
    forged = (*place.published().image_roots, seal(root, stranger.root))
    answer = post(place, ceremony.encode_bundle(Bundle(forged, (), {})), "roots")
    assert answer.status_code == 422
    assert "not signed by enough of its keys" in answer.json()["message"]
    honest = ceremony.encode_bundle(place.published())
    assert "importing a ceremony" in post(place, honest).json()["message"]


def test_a_key_that_is_not_the_published_one_signs_nothing(place: Place, tmp_path: Path) -> None:
    """A thief's own key, or a server that hands out a list that somebody else has written."""
    keys.write(tmp_path / "keys" / "models.key", "models", keys.generate(), PASSPHRASE)
    folder = model(tmp_path / "model", "stolen")
    said = place.refused("publish", "model", folder, "--keys", tmp_path / "keys")
    assert "was not signed with this key" in said


def test_a_bundle_on_a_stick_holds_what_the_device_needs(place: Place, tmp_path: Path) -> None:
    place.fleet("publish", "model", model(tmp_path / "model", "stick"), "--keys", place.keys)
    device = tmp_path / "gw"
    place.fleet("device", "add", "gw-stick", "--out", device)
    place.agreed("assign", "gw-stick", "model", "stick", "1")
    out = tmp_path / "stick.tar"
    place.fleet("bundle", "export", "--device", "gw-stick", "--out", out)
    with tarfile.open(out) as tar:
        tar.extractall(tmp_path / "stick", filter="data")
    for repository, root in (("image", "image-root.json"), ("director/gw-stick", "director-root.json")):
        folder = tmp_path / "seen" / repository
        (folder / "metadata").mkdir(parents=True)
        updater = Updater(
            str(folder / "metadata"),
            f"file:///{repository}/metadata/",
            str(folder),
            "file:///image/targets/",
            fetcher=FolderFetcher(tmp_path / "stick"),
            bootstrap=(device / root).read_bytes(),
        )
        updater.refresh()
        found = updater.get_targetinfo("models/stick/1.tar")
        assert found is not None
        updater.download_target(found)
    assert "there is no device 'gw-none'" in place.refused(
        "bundle", "export", "--device", "gw-none", "--out", tmp_path / "none.tar"
    )
    assert not (tmp_path / "none.tar").exists()


class FolderFetcher(FetcherInterface):
    """What python-tuf fetches with, over a folder in the layout of the URLs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.folder / url.removeprefix("file:///")
        if not path.exists():
            raise DownloadHTTPError(url, 404)
        return iter([path.read_bytes()])


def test_keys_are_their_owner_s_alone_and_never_on_the_server(place: Place) -> None:
    own = list((place.server.data / "updates" / "keys").iterdir())
    assert sorted(path.name for path in own) == ["director.key", "image.key"]
    for path in (*own, *place.keys.glob("*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(keys.is_sealed(path) for path in place.keys.glob("*.key"))


def test_a_killed_listener_comes_back_on_its_port(place: Place) -> None:
    child = place.server.children()["device"]
    child.send_signal(signal.SIGKILL)

    def answers() -> bool:
        with place.devices() as client:
            return client.get("/image/metadata/timestamp.json").status_code == 200

    assert wait_until(answers, "the listener")
    assert psutil.Process(place.server.children()["device"].pid).pid != child.pid


def test_a_server_killed_between_bytes_and_metadata_goes_on_where_it_was(
    place: Place, tmp_path: Path
) -> None:
    folder = model(tmp_path / "model", "killed")
    artifact = artifacts.of_model(folder)
    before = place.published()
    assert put(place, artifact.target.path, artifact.content).status_code == 200
    (place.server.data / "updates" / "artifacts" / ".incoming.0").write_bytes(b"half")
    port = place.server.endpoints["device_url"]
    place.server.stop(signal.SIGKILL)
    place.start()
    assert place.server.endpoints["device_url"] == port
    assert not (place.server.data / "updates" / "artifacts" / ".incoming.0").exists()
    assert place.published() == before
    updater = place.client("image", image_root(place, tmp_path), tmp_path / "image")
    updater.refresh()
    assert updater.get_targetinfo(artifact.target.path) is None
    assert "killed" not in place.fleet("artifact", "list")
    assert "is published" in place.fleet("publish", "model", folder, "--keys", place.keys)
    assert "killed" in place.fleet("artifact", "list")


def test_a_restored_server_is_healed_by_the_next_publication(place: Place, tmp_path: Path) -> None:
    """Its metadata is older than what was published: the publisher's own copy goes on from there."""
    updates = place.server.data / "updates"
    place.server.stop()
    shutil.copytree(updates / "image", tmp_path / "backup")
    place.start()
    place.fleet("publish", "model", model(tmp_path / "one", "healed"), "--keys", place.keys)
    seen = image_root(place, tmp_path)
    updater = place.client("image", seen, tmp_path / "image")
    updater.refresh()
    place.server.stop()
    shutil.rmtree(updates / "image")
    shutil.copytree(tmp_path / "backup", updates / "image")
    place.start()
    done = fleet(
        "publish",
        "model",
        model(tmp_path / "two", "healed", 2),
        "--keys",
        place.keys,
        "--data",
        place.server.data,
    )
    assert done.returncode == 0, done.stderr
    assert "was published from here; going on from that" in done.stderr
    updater = place.client("image", seen, tmp_path / "image")
    updater.refresh()
    for release in (1, 2):
        assert updater.get_targetinfo(f"models/healed/{release}.tar") is not None


def image_root(place: Place, folder: Path) -> Path:
    place.fleet("key", "roots", "--out", folder)
    return folder / "image-root.json"


def test_a_build_of_the_agent_is_packed_published_and_handed_out(place: Place, tmp_path: Path) -> None:
    for name in (ARGAN, NATIVE):
        (tmp_path / name).write_bytes(wheel())
    build = tmp_path / "build.tar"
    said = fleet("agent", "pack", tmp_path, "--release", "3", "--out", build)
    assert said.returncode == 0, said.stderr
    assert "argan 0.2.0, release 3; Python 3.11, x86_64" in said.stdout
    place.agreed("publish", "agent", build, "--keys", place.keys)
    updater = place.client("image", image_root(place, tmp_path), tmp_path / "image")
    updater.refresh()
    found = updater.get_targetinfo("agent/argan/3.tar")
    assert found is not None
    assert Path(updater.download_target(found)).read_bytes() == build.read_bytes()
    bare = fleet("agent", "pack", tmp_path / NATIVE, "--release", "3", "--out", build)
    assert bare.returncode == 2
    assert "no wheel of the agent itself" in bare.stderr


def test_a_ceremony_held_again_renews_and_devices_follow(place: Place, tmp_path: Path) -> None:
    root = image_root(place, tmp_path)
    (place.keys / "policies.key").unlink()
    place.fleet("key", "ceremony", "--keys", place.keys)
    assert len(place.published().image_roots) == 1
    approve_waiting(place.server.data)
    assert (place.keys / "policies.key").exists()
    assert len(place.published().image_roots) == 2
    updater = place.client("image", root, tmp_path / "image")
    updater.refresh()
    text = policy(1).content.replace(b'"leak"', b'"renewed"')
    (tmp_path / "policy.toml").write_bytes(text)
    place.agreed("publish", "policy", tmp_path / "policy.toml", "--keys", place.keys)
    updater = place.client("image", root, tmp_path / "image")
    updater.refresh()
    assert updater.get_targetinfo("policies/renewed/1.toml") is not None


@pytest.mark.attack
def test_a_ceremony_with_other_root_keys_is_refused_before_anything_is_written(
    place: Place, tmp_path: Path
) -> None:
    said = place.refused("key", "ceremony", "--keys", tmp_path / "others")
    assert "was not signed by 2 of these root keys" in said
    assert not (tmp_path / "others").exists()


def test_an_approved_publication_that_a_death_interrupted_is_finished_at_the_next_start(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_bytes(policy(1).content.replace(b'"leak"', b'"survives"'))
    place.fleet("publish", "policy", tmp_path / "policy.toml", "--keys", place.keys, "--reason", "a test")
    (waiting,) = place.server.get("/v1/proposals", waiting="true")["items"]
    place.server.stop(signal.SIGKILL)
    engine = open_engine(load(place.server.data).database_url)
    with writing(engine) as session:
        row = session.get_one(Proposal, ("default", waiting["id"]))
        row.state, row.decided_ms = "approved", row.created_ms
        session.add(row)
    engine.dispose()
    place.start()
    assert place.server.get(f"/v1/proposals/{waiting['id']}")["proposal"]["state"] == "executed"
    assert "survives" in place.fleet("artifact", "list")


def test_a_policy_is_stale_once_another_was_published_first(place: Place, tmp_path: Path) -> None:
    for name in (b"first", b"second"):
        file = tmp_path / f"{name.decode()}.toml"
        file.write_bytes(policy(1).content.replace(b'"leak"', b'"' + name + b'"'))
        place.fleet("publish", "policy", file, "--keys", place.keys, "--reason", "a test")
    late, early = place.server.get("/v1/proposals", waiting="true")["items"]
    file = place.server.data / "approver.token"
    endpoints = place.server.endpoints
    where = ("--server", endpoints["api_url"], "--token-file", file, "--ca", endpoints["api_ca"])
    assert fleet("proposal", "approve", early["id"], "--yes", *where).returncode == 0
    done = fleet("proposal", "approve", late["id"], "--yes", *where)
    assert done.returncode == 1
    assert "stale" in done.stderr
    listed = place.fleet("artifact", "list")
    assert "first" in listed
    assert "second" not in listed
