"""Where in a TOML file something stands: Python's parser keeps no positions. Pure."""

import re
from typing import Final

_PART: Final = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\[\.\.\.\]")
_TABLE: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


def line_of(text: str, path: str) -> int:
    """The line, from 1, of what ``path`` names (``$.steps[3].within_s``, as msgspec writes it).

    Where the key itself is not there, because it is missing, the line of its table; at worst 1.
    """
    wanted = [name or int(number or 0) for name, number in _PART.findall(path)]
    found, known = 1, 0
    for number, here in _places(text):
        depth = len(here)
        if here == wanted[:depth] and depth > known:
            found, known = number, depth
    return found


def _places(text: str) -> list[tuple[int, list[str | int]]]:
    """Each table header and key of ``text`` as (line, path)."""
    places: list[tuple[int, list[str | int]]] = []
    counts: dict[str, int] = {}
    table: list[str | int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = list(header[2].split("."))
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                table.append(counts[header[2]])
            places.append((number, list(table)))
        elif key := _KEY.match(line):
            places.append((number, [*table, key[1]]))
    return places
