"""The support bundle: one ``.tar.gz`` that says how an agent is, and holds no secret.

Nothing is taken from the folders that hold keys, certificates or tokens; what is taken is redacted by
shape as well, because what leaves a device is read by strangers.
"""

import gzip
import hashlib
import io
import os
import platform
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_agent import AGENT
from edge_agent.config import Config
from edge_agent.errors import LocalError
from edge_agent.service.redaction import redacted, redacted_text
from fleet_protocol.health import CATALOG
from fleet_protocol.texts import _

SUFFIX: Final = ".tar.gz"

_PACKAGES: Final = (
    "argan", "aiomqtt", "paho-mqtt", "cel-expr-python", "cryptography", "msgspec", "pymodbus", "tuf",
    "numpy", "ai-edge-litert", "openvino", "tflite-runtime",
)  # fmt: skip

_UPDATE_FILES: Final = ("journal.json", "marks.json", "installed.json")

_MOST_BYTES: Final = 1 << 20
"""Of one file that is taken from the data folder."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a bundle is made from; ``status`` as the local socket gives it."""

    config: Config
    status: Mapping[str, Any]
    log: str


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle on disk; ``id`` is short enough to be told over the telephone."""

    id: str
    size: int
    files: tuple[str, ...]


def write(path: Path, source: Source) -> Written:
    """Write the bundle to ``path``, readable by its owner alone. Never over a file that is there.

    Raises:
        LocalError: the name is another kind's, the file exists, or it cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        raise LocalError(_("a support bundle's name ends in {suffix}").format(suffix=SUFFIX))
    files = dict(contents(source))
    packed = _packed(files)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise LocalError(_("{path} is there already; choose another name").format(path=path)) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(packed)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    return Written(hashlib.sha256(packed).hexdigest()[:8], len(packed), tuple(files))


def contents(source: Source) -> Iterator[tuple[str, bytes]]:
    """Every file of the bundle by name."""
    yield "status.json", _json(source.status)
    yield "health.json", _json(_health(source.status))
    yield "config.json", _json(msgspec.to_builtins(source.config, enc_hook=str))
    yield "versions.json", _json(_versions())
    if source.log:
        yield "log.txt", redacted_text(source.log).encode()
    for name in _UPDATE_FILES:
        content = _taken(source.config.data / "updates" / name)
        if content is not None:
            yield f"updates/{name}", content


def _packed(files: Mapping[str, bytes]) -> bytes:
    """The same files give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def _json(content: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(redacted(content), enc_hook=str), indent=2) + b"\n"


def _health(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is raised, with the words for it: whoever reads this may have another version's catalog."""
    return [dict(raised) | _words(raised["code"]) for raised in status["health"]]


def _words(code: str) -> dict[str, str]:
    known = CATALOG.get(code)
    return {} if known is None else {
        "severity": known.severity.name.lower(),
        "title": known.title,
        "meaning": known.meaning,
        "next_step": known.next_step,
    }  # fmt: skip


def _versions() -> dict[str, Any]:
    installed = {name: _version(name) for name in _PACKAGES}
    return {
        "agent": AGENT,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: version for name, version in installed.items() if version},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _taken(path: Path) -> bytes | None:
    """The document in ``path``, redacted; none where there is none that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
        return _json(msgspec.json.decode(content))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        return _json({"unreadable": str(error)})


def _unwritable(path: Path, error: OSError) -> LocalError:
    return LocalError(
        _("{path} cannot be written ({reason}); choose another place").format(
            path=path, reason=error.strerror
        )
    )
