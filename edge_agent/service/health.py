"""The board of health codes that are raised now; the words for them are in the catalog."""

import asyncio
import logging
from typing import Final, Protocol

from fleet_protocol.health import CATALOG
from fleet_protocol.messages import HealthReport
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)
_MAX_DETAIL: Final = 200
_MAX_REPORTS: Final = 256


class WallClock(Protocol):
    """What dates a code."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 as the device believes."""


def as_line(text: str, limit: int = _MAX_DETAIL) -> str:
    """``text`` as one printable line of at most ``limit`` characters, as the protocol asks."""
    return "".join(mark if mark.isprintable() else " " for mark in text)[:limit]


class HealthBoard:
    """Which codes are raised, since when, for what; ``changed`` is set whenever that changes.

    One code can be raised for several subjects (two sensors that do not answer); each is raised
    and cleared by itself and reported by itself.
    """

    def __init__(self, clock: WallClock) -> None:
        self.changed: Final = asyncio.Event()
        self._clock = clock
        self._raised: dict[tuple[str, str], HealthReport] = {}

    def raise_code(self, code: str, detail: str = "", *, subject: str = "") -> None:
        """Raise ``code`` for ``subject``; raised again, it keeps its beginning."""
        if code not in CATALOG:
            raise KeyError(code)
        key = (code, subject)
        line = as_line(f"{subject}: {detail}" if subject else detail)
        before = self._raised.get(key)
        if before is not None and before.detail == line:
            return
        since = before.since_wall_ms if before else self._clock.wall_ms()
        self._raised[key] = HealthReport(code=code, since_wall_ms=since, detail=line)
        if before is None:
            _LOG.warning(
                _("{code}: {title}. {detail}").format(code=code, title=CATALOG[code].title, detail=line)
            )
        self.changed.set()

    def clear(self, code: str, *, subject: str = "") -> None:
        """Take ``code`` back for ``subject``; no matter if it was not raised."""
        if self._raised.pop((code, subject), None) is not None:
            _LOG.info(_("{code} is over. {subject}").format(code=code, subject=subject))
            self.changed.set()

    def reports(self) -> list[HealthReport]:
        """All that is raised, oldest first."""
        reports = sorted(self._raised.values(), key=lambda report: report.since_wall_ms)
        return reports[:_MAX_REPORTS]
