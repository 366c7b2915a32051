"""How a key in a security module is named: an RFC 7512 URI. Pure.

It says which token, which object, the vendor's library, and the file that holds the PIN. The PIN itself
is never a part of it, because URIs are kept in settings and printed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from fleet_protocol.texts import _
from fleet_signing.errors import ModuleKeyError

SCHEME: Final = "pkcs11:"
_EXAMPLE: Final = "pkcs11:token=TOKEN;object=KEY?module-path=/usr/lib/MODULE.so"
_PATH: Final = {"token", "object"}
_QUERY: Final = {"module-path", "pin-source"}


@dataclass(frozen=True, slots=True)
class KeyUri:
    """What a URI says; ``pin_file`` is None where the environment holds the PIN."""

    module: str
    token: str
    label: str
    pin_file: Path | None

    def __str__(self) -> str:
        """The URI again, in one form for all that mean the same."""
        key = f"token={_quoted(self.token)};object={_quoted(self.label)}"
        uri = f"{SCHEME}{key}?module-path={_quoted(self.module)}"
        return uri if self.pin_file is None else f"{uri}&pin-source=file:{_quoted(str(self.pin_file))}"


def parse_uri(text: str, pin_file: Path | None = None) -> KeyUri:
    """The key that ``text`` names, with its PIN in ``pin_file`` where the URI names no file itself.

    Raises:
        ModuleKeyError: it is no such URI, or says more or less than it has to.
    """
    path, _mark, query = text.removeprefix(SCHEME).partition("?")
    found = _attributes(text, path, ";", _PATH) | _attributes(text, query, "&", _QUERY)
    missing = (_PATH | {"module-path"}) - {name for name, value in found.items() if value}
    if not text.startswith(SCHEME) or missing:
        raise ModuleKeyError(
            _("{uri!r} is no key of a security module; write {example}").format(
                uri=text[:200], example=_EXAMPLE
            )
        )
    source = found.get("pin-source")
    if source:
        pin_file = Path(source.removeprefix("file:"))
    return KeyUri(found["module-path"], found["token"], found["object"], pin_file)


def _attributes(uri: str, text: str, separator: str, known: set[str]) -> dict[str, str]:
    found = {}
    for part in filter(None, text.split(separator)):
        name, _equals, value = part.partition("=")
        if name == "pin-value":
            raise ModuleKeyError(_("a PIN does not belong into a URI; name a file with pin-source"))
        if name not in known:
            raise ModuleKeyError(
                _("{uri!r} says {name!r}, which means nothing here; write {example}").format(
                    uri=uri[:200], name=name[:40], example=_EXAMPLE
                )
            )
        found[name] = unquote(value)
    return found


def _quoted(text: str) -> str:
    return quote(text, safe="/:@,.-_~")
