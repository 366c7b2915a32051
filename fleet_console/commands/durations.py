"""Times as people write them: 90s, 15m, 24h, 7d."""

import re
import time
from typing import Final

from fleet_console.errors import UsageError
from fleet_protocol.texts import _

_DURATION: Final = re.compile(r"([0-9]{1,6})(s|m|h|d)\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int | None:
    """The seconds that ``text`` means; None where it is no time."""
    match = _DURATION.match(text)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]


def ago_ms(duration: str) -> int:
    """When it was so long ago, in ms since 1970.

    Raises:
        UsageError: it is no time.
    """
    past_s = seconds(duration)
    if past_s is None:
        raise UsageError(
            _("--since {given!r} is no time; give for example 90s, 15m, 24h or 7d").format(given=duration)
        )
    return max(0, int(time.time() * 1000) - past_s * 1000)
