"""Who is logged in where: one file a server in the person's configuration folder, for their eyes alone."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _
from fleet_signing.files import replace_durably

_NAMED: Final = 16


@dataclass(frozen=True, slots=True)
class Login:
    """A session at the server ``url``; ``has_ca`` says that its authority's certificate is kept beside it."""

    url: str
    person: str
    token: str
    expires_ms: int
    has_ca: bool

    @property
    def ca(self) -> Path | None:
        """The copy of the authority's certificate, None for the system's trust."""
        return _path(self.url).with_suffix(".pem") if self.has_ca else None


def folder() -> Path:
    """Where logins are kept."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "argan"


def keep(login: Login, ca: Path | None) -> None:
    """Remember ``login``, with a copy of the authority's certificate ``ca``.

    Raises:
        ConsoleError: the folder cannot be written.
    """
    path = _path(login.url)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ca is not None:
            replace_durably(path.with_suffix(".pem"), ca.read_bytes(), 0o600)
        replace_durably(path, json.dumps(asdict(login), indent=2).encode() + b"\n", 0o600)
    except OSError as error:
        raise ConsoleError(
            _("the login cannot be kept in {path} ({reason})").format(path=path.parent, reason=error.strerror)
        ) from error


def forget(url: str) -> None:
    """Remember no login at ``url``."""
    path = _path(url)
    path.unlink(missing_ok=True)
    path.with_suffix(".pem").unlink(missing_ok=True)


def living() -> Iterator[Login]:
    """Every login that has not ended; what cannot be read is none."""
    for path in sorted(folder().glob("*.json")):
        try:
            login = Login(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if login.expires_ms > time.time() * 1000:
            yield login


def _path(url: str) -> Path:
    return folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:_NAMED]}.json"
