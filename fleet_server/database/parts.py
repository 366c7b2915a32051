"""Long lists in parts that one statement takes."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

AT_ONCE: Final = 500
"""Devices named in one statement; a database takes some thousands of values."""

_Item = TypeVar("_Item")


def in_parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """``items``, at most :data:`AT_ONCE` at a time."""
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
