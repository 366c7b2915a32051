"""What this board is called by who made it, so that two boards are never taken for one.

The first source that says something counts; each is named in what is found.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FILES: Final = (
    ("board", "sys/firmware/devicetree/base/serial-number"),
    ("product", "sys/class/dmi/id/product_serial"),
    ("board", "sys/class/dmi/id/board_serial"),
)
_MACHINE_ID: Final = "etc/machine-id"
_CARDS: Final = "sys/class/net"

_MAX: Final = 100
_FILLERS: Final = re.compile(
    r"(?:to be filled.*|default.*|none|not .*|unknown|system serial.*|[0x.\-\s]*)\Z", re.IGNORECASE
)
"""What makers leave in place of a number."""


def board_serial(root: Path = Path("/")) -> str:
    """The board's number: of its firmware, else of its network card, else of its system.

    Firmware of a PC tells it only to root. A system's own number comes last: it is copied with an image.
    """
    for kind, found in _candidates(root):
        text = "".join(letter for letter in found if letter.isascii() and letter.isprintable()).strip()
        if text and _FILLERS.match(text) is None:
            return f"{kind}:{text[:_MAX]}"
    return "unknown"


def _candidates(root: Path) -> Iterator[tuple[str, str]]:
    for kind, place in _FILES:
        yield kind, _read(root / place)
    for card in sorted((root / _CARDS).glob("*")):
        if (card / "device").exists():  # one of hardware
            yield "mac", _read(card / "address")
    yield "machine", _read(root / _MACHINE_ID)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
