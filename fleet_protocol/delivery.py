"""On which terms an artifact may be fetched: how fast, and at which hours. Pure.

Both an operator's assignment and the device's own configuration may give terms; what both allow is
allowed. Windows are hours of the day as the device's own clock on the wall shows them, ``22:00-06:00``
for a night.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from fleet_protocol.errors import TargetError
from fleet_protocol.texts import _

CUSTOM: Final = "delivery"
"""The key of the terms in a target's ``custom``, in the director's word alone."""

MAX_WINDOWS: Final = 8
DAY_MIN: Final = 24 * 60
HOUR_MIN: Final = 60
PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]\Z"

_WINDOW: Final = re.compile(PATTERN)

Window = Annotated[str, msgspec.Meta(pattern=PATTERN)]
Windows = Annotated[tuple[Window, ...], msgspec.Meta(max_length=MAX_WINDOWS)]
KibPerS = Annotated[int, msgspec.Meta(ge=0, le=2**20)]


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``max_kib_per_s``: KiB a second at most, 0 for as fast as it goes. No ``windows``: at any hour."""

    max_kib_per_s: KibPerS = 0
    windows: Windows = ()


ANY: Final = Delivery()
"""At any hour, as fast as it goes."""


def custom_of(terms: Delivery) -> dict[str, Any]:
    """What ``terms`` add to a target's ``custom``; terms that ask for nothing add nothing."""
    return {} if terms == ANY else {CUSTOM: msgspec.to_builtins(terms)}


def parse(custom: Mapping[str, Any] | None) -> Delivery:
    """The terms in a target's ``custom``; :data:`ANY` where it names none.

    Raises:
        TargetError: they do not parse.
    """
    try:
        return msgspec.convert((custom or {}).get(CUSTOM, {}), Delivery)
    except msgspec.ValidationError as error:
        raise TargetError(_("the terms of delivery cannot be read: {reason}").format(reason=error)) from None


def slower(*rates: int) -> int:
    """The lowest of ``rates`` that is a limit; 0 where none is."""
    return min((rate for rate in rates if rate), default=0)


def shut_for_min(terms: Iterable[Delivery], at: datetime) -> int:
    """Minutes from ``at`` until the windows of all of ``terms`` are open; 0 where they are.

    A whole day's minutes and one more where they are never open together.
    """
    minute = at.hour * HOUR_MIN + at.minute
    sets = [[_ends(window) for window in each.windows] for each in terms if each.windows]
    for ahead in range(DAY_MIN):
        if all(any(_holds(window, minute + ahead) for window in windows) for windows in sets):
            return ahead
    return DAY_MIN + 1


def problem(window: str) -> str:
    """Why ``window`` is none; empty where it is one."""
    if _WINDOW.match(window):
        return ""
    return _("{window!r} is no window; write it like 22:00-06:00").format(window=window[:40])


def _ends(window: str) -> tuple[int, int]:
    begin, _dash, end = window.partition("-")
    return _minute(begin), _minute(end)


def _minute(clock: str) -> int:
    hour, _colon, minute = clock.partition(":")
    return int(hour) * HOUR_MIN + int(minute)


def _holds(window: tuple[int, int], minute: int) -> bool:
    """Whether ``minute`` lies within; a window that ends where it begins is the whole day."""
    begin, end = window
    length = (end - begin) % DAY_MIN or DAY_MIN
    return (minute - begin) % DAY_MIN < length
