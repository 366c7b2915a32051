"""Times as people write them: 90s, 15m, 24h, 7d."""

import re
from typing import Final

_DURATION: Final = re.compile(r"([0-9]{1,6})(s|m|h|d)\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int | None:
    """The seconds that ``text`` means; None where it is no time."""
    match = _DURATION.match(text)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]
