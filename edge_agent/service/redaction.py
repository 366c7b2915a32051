"""Takes out of a text or a document what must not leave the device. Pure.

What leaves is read by strangers: keys, tokens and passwords are cut out by their shape, whoever let
them slip in.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"pass(word|phrase|wd)|secret|token|credential|api[_-]?key|private|authorization", re.IGNORECASE
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_IN_TEXT: Final = (
    (_PEM, REDACTED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(\w+://)[^/\s@]+@"), rf"\1{REDACTED}@"),
    (
        re.compile(r"(?i)\b([\w-]*(?:password|passphrase|secret|token|api[_-]?key)[\w-]*\s*[=:]\s*)[^\s,;]+"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), REDACTED),
)


def redacted_text(text: str) -> str:
    """``text`` without PEM blocks, bearer tokens, JSON web tokens and passwords."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def redacted(content: Any) -> Any:
    """``content`` (what JSON can hold) without values whose name or shape tells that they are secret."""
    match content:
        case str():
            return redacted_text(content)
        case Mapping():
            return {
                key: REDACTED if _is_secret(str(key), value) else redacted(value)
                for key, value in content.items()
            }
        case list() | tuple():
            return [redacted(each) for each in content]
        case _:
            return content


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and bool(_SECRET_NAME.search(name))
