"""Numbers as characters: a line of blocks, a bar, and a curve of dots. Pure; NaN is a hole."""

import math
from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_HOLE: Final = " "

_BRAILLE: Final = 0x2800
_DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Braille dots of a cell by column and by row, from the top."""


def spark(values: Sequence[float], width: int) -> str:
    """The last ``width`` of ``values`` as blocks, right-aligned, scaled to what is shown."""
    shown = list(values)[-width:] if width > 0 else []
    known = [value for value in shown if math.isfinite(value)]
    if not known:
        return _HOLE * max(width, 0)
    low, high = min(known), max(known)
    marks = "".join(_block(value, low, high) for value in shown)
    return marks.rjust(width, _HOLE)


def bar(share: float, width: int) -> tuple[str, str]:
    """``share`` (0 to 1) of ``width`` cells as a heavy line to half a cell, and the light rest."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    full, rest = divmod(halves, 2)
    heavy = "━" * full + "╸" * rest
    return heavy, "─" * (width - len(heavy))


def curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """The last values as a curve of ``height`` lines of ``width`` cells, two values a cell, the top first."""
    columns, rows = width * 2, height * 4
    shown = list(values)[-columns:]
    known = [value for value in shown if math.isfinite(value)]
    cells = [[_BRAILLE] * width for _row in range(height)]
    if known and width > 0 and height > 0:
        low, high = min(known), max(known)
        first = columns - len(shown)
        previous: int | None = None
        for column, value in enumerate(shown, first):
            row = _row(value, low, high, rows) if math.isfinite(value) else None
            for each in _between(previous, row):
                cells[each // 4][column // 2] |= _DOTS[column % 2][each % 4]
            previous = row
    return ["".join(map(chr, line)) for line in cells]


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return _HOLE
    if high <= low:
        return _BLOCKS[3]
    return _BLOCKS[round(_share(value, low, high) * (len(_BLOCKS) - 1))]


def _row(value: float, low: float, high: float, rows: int) -> int:
    if high <= low:
        return rows // 2
    return round((1.0 - _share(value, low, high)) * (rows - 1))


def _share(value: float, low: float, high: float) -> float:
    """Where ``value`` lies between the two; halved, because their difference may be no number any more."""
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.0


def _between(previous: int | None, row: int | None) -> range:
    """The rows to dot in a column so that the curve does not break."""
    if row is None:
        return range(0)
    if previous is None or previous == row:
        return range(row, row + 1)
    return range(row, previous) if row < previous else range(previous + 1, row + 1)
