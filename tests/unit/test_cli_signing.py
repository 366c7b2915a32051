"""``fleet key ceremony`` on a machine that is never online, with a person at it and without."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet_signing import acceptance, ceremony, keys
from fleet_signing.ceremony import OnlineKeys, Request
from fleet_signing.image import OFFLINE_ROLES
from fleet_signing.metadata import now
from fleet_signing.roles import KEY_NAMES
from tests.support.fleet_server import fleet

ONLINE = OnlineKeys.generate()
NAMES = sorted(KEY_NAMES)


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_bytes(ceremony.encode_request(Request(ONLINE.public, None)))
    return path


@pytest.fixture
def passphrase_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery\n")
    monkeypatch.setenv("ARGAN_PASSPHRASE_FILE", str(path))
    return path


def hold(folder: Path, request: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ("--request", request, "--keys", folder / "keys", "--out", folder / "bundle.json")
    return fleet("key", "ceremony", *options, *more)


def at_a_terminal(command: Sequence[str | Path], answers: dict[str, list[str]]) -> tuple[int, str]:
    """Run ``command`` for a person who answers each question; exit code, and all that was on the screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet_console", *map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen, unread = "", ""
    while True:
        try:
            part = os.read(ours, 4096).decode()
        except OSError:  # nobody has the other end any more
            break
        screen, unread = screen + part, unread + part
        for question, given in answers.items():
            if question in unread:
                unread = ""
                os.write(ours, f"{given.pop(0)}\n".encode())
    os.close(ours)
    return process.wait(30), screen


def test_a_person_compares_the_fingerprint_and_gives_each_key_its_passphrase(
    tmp_path: Path, request_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARGAN_PASSPHRASE_FILE", raising=False)
    phrases = {name: f"the words of {name}" for name in NAMES}
    questions = {
        "Is it what": ["y"],
        # The last space comes once the echo is off; what is typed before is thrown away.
        **{f"Passphrase for {name}: ": [phrases[name]] for name in KEY_NAMES},
        "Repeat for confirmation: ": [phrases[name] for name in KEY_NAMES],
    }
    command = ("key", "ceremony", "--request", request_file, "--keys", tmp_path / "keys")
    code, screen = at_a_terminal((*command, "--out", tmp_path / "bundle.json"), questions)
    assert code == 0, screen
    assert ceremony.fingerprint(ONLINE.public) in screen
    assert "the words of" not in screen
    for name in NAMES:
        assert keys.read(tmp_path / "keys" / f"{name}.key", phrases[name]).role == name


def test_a_person_who_says_no_ends_it_with_nothing_written(tmp_path: Path, request_file: Path) -> None:
    command = ("key", "ceremony", "--request", request_file, "--keys", tmp_path / "keys")
    code, screen = at_a_terminal((*command, "--out", tmp_path / "bundle.json"), {"Is it what": ["n"]})
    assert code == 1
    assert "the request is not the server's own" in screen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json"]


def test_a_script_gives_its_passphrase_in_a_file(
    tmp_path: Path, request_file: Path, passphrase_file: Path
) -> None:
    done = hold(tmp_path, request_file, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fingerprint"] == ceremony.fingerprint(ONLINE.public)
    assert sorted(path.stem for path in (tmp_path / "keys").iterdir()) == NAMES
    bundle = ceremony.decode_bundle((tmp_path / "bundle.json").read_bytes())
    acceptance.accept(None, bundle, ONLINE.public, now(), lambda _target: None)
    assert b"private" not in (tmp_path / "bundle.json").read_bytes()


def test_held_again_it_goes_on_from_what_the_server_has(
    tmp_path: Path, request_file: Path, passphrase_file: Path
) -> None:
    assert hold(tmp_path, request_file).returncode == 0
    first = ceremony.decode_bundle((tmp_path / "bundle.json").read_bytes())
    request_file.write_bytes(ceremony.encode_request(Request(ONLINE.public, first)))
    assert hold(tmp_path, request_file).returncode == 0
    second = ceremony.decode_bundle((tmp_path / "bundle.json").read_bytes())
    assert second.image_roots[:1] == first.image_roots
    assert second.image_roots[1].signed.keys == first.image_roots[0].signed.keys
    versions = {role: each.signed.version for role, each in second.roles.items()}
    assert versions == dict.fromkeys(OFFLINE_ROLES, 2)


def test_without_file_and_terminal_nothing_is_made(
    tmp_path: Path, request_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARGAN_PASSPHRASE_FILE", raising=False)
    done = hold(tmp_path, request_file)
    assert done.returncode == 2
    assert "let ARGAN_PASSPHRASE_FILE name a file with it, or use a terminal" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json"]


def test_a_short_passphrase_makes_nothing(tmp_path: Path, request_file: Path, passphrase_file: Path) -> None:
    passphrase_file.write_text("short\n")
    done = hold(tmp_path, request_file)
    assert done.returncode == 1
    assert "at least 8 characters" in done.stderr
    assert not (tmp_path / "keys").exists()


def test_what_is_missing_on_the_command_line_is_told(tmp_path: Path, request_file: Path) -> None:
    done = fleet("key", "ceremony", "--request", request_file, "--keys", tmp_path / "keys")
    assert done.returncode == 2
    assert "takes both --request FILE and --out FILE" in done.stderr
    done = hold(tmp_path, tmp_path / "nowhere.json")
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)
    request_file.write_text("{}")
    done = hold(tmp_path, request_file)
    assert (done.returncode, "make it with 'fleet key export'" in done.stderr) == (1, True)


def test_a_folder_with_another_key_under_a_name_is_refused(
    tmp_path: Path, request_file: Path, passphrase_file: Path
) -> None:
    keys.write(tmp_path / "keys" / "root-2.key", "models", keys.generate(), "correct horse battery")
    done = hold(tmp_path, request_file)
    assert done.returncode == 1
    assert "is the key models, not root-2" in done.stderr
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["root-2.key"]


def test_publishing_what_is_no_model_never_asks_a_server(tmp_path: Path) -> None:
    done = fleet("publish", "model", tmp_path, "--keys", tmp_path, "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "manifest.json cannot be read" in done.stderr
    assert done.stdout == ""
