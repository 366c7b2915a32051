"""People at several places sign one draft, with keys in files and in a security module."""

import json
import subprocess
from pathlib import Path

import pytest

from fleet_signing import acceptance, ceremony, drafts, keys
from fleet_signing.ceremony import OnlineKeys, Request
from fleet_signing.metadata import has_signed, now
from fleet_signing.roles import KEY_NAMES
from tests.support.fleet_server import fleet
from tests.support.security_module import PIN, SecurityModule

ONLINE = OnlineKeys.generate()
PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    monkeypatch.setenv("ARGAN_PASSPHRASE_FILE", str(path))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return fleet("key", *arguments)


def done(*arguments: str | Path) -> str:
    finished = run(*arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout + finished.stderr


def test_a_key_in_a_security_module_signs_a_draft_beside_keys_in_files(
    tmp_path: Path, security_module: SecurityModule
) -> None:
    """One person holds ``root-1`` in a module, another all the rest; they never meet."""
    uri = security_module.make_key("root-1")
    one, rest, post = tmp_path / "one", tmp_path / "rest", tmp_path / "post"
    post.mkdir()
    made = done("new", "root-1", "--keys", one, "--pkcs11", str(uri))
    assert "root-1.pub" in made
    assert PIN not in (one / "root-1.key").read_text()
    others = {name: keys.generate() for name in KEY_NAMES if name != "root-1"}
    for name, signer in others.items():
        # As 'fleet key new' does, without its start of a process and its costly sealing for each.
        keys.write(rest / f"{name}.key", name, signer, None)
        keys.write_public(post / f"{name}.pub", name, signer.public_key)
    (one / "root-1.pub").replace(post / "root-1.pub")
    request = tmp_path / "request.json"
    request.write_bytes(ceremony.encode_request(Request(ONLINE.public, None)))
    draft, first, second, whole = (tmp_path / name for name in ("draft", "first", "second", "whole"))
    drawn = done("draft", "--request", request, "--public", post, "--out", draft)
    assert ceremony.fingerprint(ONLINE.public) in drawn
    found = drafts.decode(draft.read_bytes())
    refused = run("sign", draft, "--keys", one, "--out", first)
    assert (refused.returncode, "if it is a new key, say so" in refused.stderr) == (1, True)
    told = done("sign", draft, "--keys", one, "--out", first, "--new-key")
    assert drafts.fingerprint(found) in told
    assert "image root needs 1 more of the signatures by root-2, root-3" in told
    unfinished = run("import", first, "--server", "https://127.0.0.1:9")
    assert (unfinished.returncode, "models needs 1 more" in unfinished.stderr) == (1, True)
    done("sign", draft, "--keys", rest, "--out", second, "--new-key")
    assert f"fleet key import {whole}" in done("combine", first, second, "--out", whole)
    bundle = drafts.decode(whole.read_bytes()).bundle
    acceptance.accept(None, bundle, ONLINE.public, now(), lambda _target: None)
    key = keys.public_in(one / "root-1.key")
    assert (key.keytype, key.scheme) == ("ecdsa", "ecdsa-sha2-nistp256")
    assert all(has_signed(key, root) for root in (*bundle.image_roots, *bundle.director_roots))


def test_a_key_that_was_exchanged_in_its_module_signs_nothing(
    tmp_path: Path, security_module: SecurityModule
) -> None:
    uri, other = security_module.make_key("before"), security_module.make_key("after")
    path = tmp_path / "models.key"
    keys.write_module_key(path, "models", uri)
    path.write_text(path.read_text().replace(f"object={uri.label}", f"object={other.label}"))
    with pytest.raises(keys.KeyFileError, match="holds another key under this name"):
        keys.read(path)


def test_a_new_key_is_made_once_and_under_a_known_name(tmp_path: Path) -> None:
    found = json.loads(run("new", "models", "--keys", tmp_path / "keys", "--json").stdout)
    assert keys.public_in(tmp_path / "keys" / "models.pub").keyid == found["keyid"]
    assert keys.read(tmp_path / "keys" / "models.key", PASSPHRASE).role == "models"
    again = run("new", "models", "--keys", tmp_path / "keys")
    assert (again.returncode, "never written over" in again.stderr) == (1, True)
    unknown = run("new", "root-4", "--keys", tmp_path / "keys")
    assert (unknown.returncode, "there are: root-1, " in unknown.stderr) == (2, True)


def test_keys_that_a_draft_does_not_ask_for_are_told(tmp_path: Path) -> None:
    offline = ceremony.OfflineKeys.generate()
    draft = tmp_path / "draft.json"
    bundle = ceremony.hold(offline, ONLINE.public, now())
    draft.write_bytes(drafts.encode(drafts.Draft(bundle)))
    keys.write(tmp_path / "keys" / "models.key", "models", keys.generate(), None)
    refused = run("sign", draft, "--keys", tmp_path / "keys", "--out", tmp_path / "out.json")
    assert (refused.returncode, "asks for none of the keys" in refused.stderr) == (1, True)
    assert not (tmp_path / "out.json").exists()
