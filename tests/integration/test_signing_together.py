"""Two people who never meet publish what acts, and a ceremony travels between its holders: a real server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_signing import ceremony, drafts
from fleet_signing import keys as keys_of_files
from fleet_signing.ceremony import Bundle
from tests.support.fleet_server import approve_waiting, fleet
from tests.support.repositories import policy
from tests.support.update_place import PASSPHRASE, Place, post


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("together")
    place = Place(folder)
    with pytest.MonkeyPatch.context() as patch:
        (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
        patch.setenv("ARGAN_PASSPHRASE_FILE", str(folder / "passphrase"))
        try:
            place.start()
            place.fleet("key", "ceremony", "--keys", place.keys)
            yield place
        finally:
            place.server.end()


def keyring(place: Place, folder: Path, *names: str) -> Path:
    """A folder with those keys alone."""
    folder.mkdir()
    for name in names:
        shutil.copy(place.keys / f"{name}.key", folder)
    return folder


@pytest.mark.attack
def test_a_policy_that_acts_is_published_by_two_who_never_meet_and_by_no_one_alone(
    place: Place, tmp_path: Path
) -> None:
    file, draft, whole = (tmp_path / name for name in ("policy.toml", "draft.json", "whole.json"))
    file.write_bytes(policy(1, actuates=True).content)
    one = keyring(place, tmp_path / "one", "actuation-1", "policies")
    two = keyring(place, tmp_path / "two", "actuation-2")
    alone = place.refused("publish", "policy", file, "--keys", one, "--reason", "a test")
    assert "takes the signatures of actuation-1 and actuation-2" in alone
    told = place.fleet("publish", "policy", file, "--keys", one, "--draft", draft)
    assert "actuation needs 1 more of the signatures by actuation-2" in told
    assert "needs 1 more" in place.refused("key", "import", draft, "--reason", "a test")
    signed = fleet("key", "sign", draft, "--keys", two, "--out", whole)
    assert signed.returncode == 0, signed.stderr
    assert "new: actuation/leak/1.toml" in signed.stderr
    place.fleet("key", "import", whole, "--reason", "both have signed")
    (waiting,) = place.server.get("/v1/proposals", waiting="true")["items"]
    assert waiting["action"] == "policy.publish"
    approve_waiting(place.server.data)
    assert "actuation/leak/1.toml" in place.published().roles["actuation"].signed.targets
    updater = place.client("image", image_root(place, tmp_path / "roots"), tmp_path / "device")
    updater.refresh()
    target = updater.get_targetinfo("actuation/leak/1.toml")
    assert target is not None
    assert updater.download_target(target)


def test_a_key_is_replaced_by_a_draft_that_only_those_sign_whom_it_needs(
    place: Place, tmp_path: Path
) -> None:
    root = image_root(place, tmp_path / "roots")
    request, draft, first, whole = (tmp_path / name for name in ("request", "draft", "first", "whole"))
    fresh = tmp_path / "fresh"
    place.fleet("key", "export", "--out", request)
    made = fleet("key", "new", "models", "--keys", fresh)
    assert made.returncode == 0, made.stderr
    drawn = fleet("key", "draft", "--request", request, "--public", fresh, "--out", draft)
    assert drawn.returncode == 0, drawn.stderr
    assert "policies" not in drawn.stdout
    old = keyring(place, tmp_path / "old", "root-1", "root-3", "targets-2", "targets-3")
    for keys, source, out, more in ((old, draft, first, ()), (fresh, first, whole, ("--new-key",))):
        signed = fleet("key", "sign", source, "--keys", keys, "--out", out, *more)
        assert signed.returncode == 0, signed.stderr
    signed_by_all = drafts.decode(whole.read_bytes()).bundle
    alone = Bundle((), (), {"targets": signed_by_all.roles["targets"]})
    refused = post(place, ceremony.encode_bundle(alone))
    assert (refused.status_code, "who may sign" in refused.json()["message"]) == (422, True)
    place.fleet("key", "import", whole, "--reason", "models was stolen")
    (waiting,) = place.server.get("/v1/proposals", waiting="true")["items"]
    said = place.server.get(f"/v1/proposals/{waiting['id']}")["diff"]
    new = keys_of_files.public_in(fresh / "models.key").keyid
    assert [line["after"] for line in said if line["field"].startswith("key ")] == [new]
    approve_waiting(place.server.data)
    assert len(place.published().image_roots) == 2
    place.client("image", root, tmp_path / "device").refresh()


def image_root(place: Place, folder: Path) -> Path:
    place.fleet("key", "roots", "--out", folder)
    return folder / "image-root.json"
