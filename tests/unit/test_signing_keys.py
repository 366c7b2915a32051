"""Key files: sealed or open, never written over, and refused with words when they cannot be used."""

import json
from pathlib import Path

import pytest

from fleet_signing import keys
from fleet_signing.errors import KeyFileError

PASSPHRASE = "correct horse battery"


def test_a_sealed_key_comes_back_with_its_passphrase(tmp_path: Path) -> None:
    path, signer = tmp_path / "keys" / "models.key", keys.generate()
    keys.write(path, "models", signer, PASSPHRASE)
    assert keys.is_sealed(path)
    assert path.stat().st_mode & 0o777 == 0o600
    held = keys.read(path, PASSPHRASE)
    assert (held.role, held.signer.public_key) == ("models", signer.public_key)
    signature = held.signer.sign(b"content")
    signer.public_key.verify_signature(signature, b"content")
    assert [each.name for each in path.parent.iterdir()] == ["models.key"]


def test_the_private_half_is_nowhere_in_a_sealed_file(tmp_path: Path) -> None:
    path, signer = tmp_path / "models.key", keys.generate()
    keys.write(path, "models", signer, PASSPHRASE)
    keys.write(tmp_path / "open.key", "models", signer, None)
    private = json.loads((tmp_path / "open.key").read_text())["private"]
    assert private not in path.read_text()
    assert keys.public_in(path) == signer.public_key
    assert not keys.is_sealed(tmp_path / "open.key")
    assert keys.read(tmp_path / "open.key").signer.public_key == signer.public_key


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    keys.write(tmp_path / "a.key", "models", keys.generate(), None)
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(KeyFileError, match="holds a key already"):
        keys.write(tmp_path / "a.key", "models", keys.generate(), None)
    assert (tmp_path / "a.key").read_bytes() == before


@pytest.mark.parametrize(("passphrase", "said"), [(None, "is sealed"), ("wrong", "does not open")])
def test_without_its_passphrase_a_sealed_key_stays_shut(
    tmp_path: Path, passphrase: str | None, said: str
) -> None:
    keys.write(tmp_path / "a.key", "models", keys.generate(), PASSPHRASE)
    with pytest.raises(KeyFileError, match=said):
        keys.read(tmp_path / "a.key", passphrase)


def test_a_short_passphrase_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="at least 8 characters"):
        keys.write(tmp_path / "a.key", "models", keys.generate(), "short")
    assert list(tmp_path.iterdir()) == []


def test_a_public_half_that_was_changed_is_noticed(tmp_path: Path) -> None:
    """Else a file could say that it is another key than it is."""
    for passphrase in (None, PASSPHRASE):
        path = tmp_path / f"{passphrase}.key"
        keys.write(path, "models", keys.generate(), passphrase)
        content = json.loads(path.read_text())
        content["public"] = keys.public_text(keys.generate().public_key)
        path.write_text(json.dumps(content))
        with pytest.raises(KeyFileError):
            keys.read(path, passphrase)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b" " * 20_000, b"-----BEGIN"])
def test_what_is_no_key_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.key").write_bytes(content)
    for read in (keys.read, keys.public_in, keys.is_sealed):
        with pytest.raises(KeyFileError, match="is no key that can be used"):
            read(tmp_path / "a.key")


def test_a_sealing_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    keys.write(path, "models", keys.generate(), PASSPHRASE)
    content = json.loads(path.read_text())
    content["sealing"]["cost"] = 2**30
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="cost"):
        keys.read(path, PASSPHRASE)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot be written"):
        keys.write(tmp_path / "file" / "a.key", "models", keys.generate(), None)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "é" * 64])
def test_a_public_key_has_64_digits(text: str) -> None:
    with pytest.raises(KeyFileError, match="Ed25519 has 64 hexadecimal digits"):
        keys.public_key(text)
