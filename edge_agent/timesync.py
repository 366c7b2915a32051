"""Whether a time service has set this machine's clock, as the kernel tells.

The kernel keeps the largest error that its clock may have. A time service lowers it with every
answer; setting the clock by hand, or from a file at boot, raises it to the limit. That is how
``timedatectl`` answers the same question.
"""

import ctypes
import sys
from typing import Final

_UNSYNCHRONIZED_US: Final = 16_000_000
"""The kernel's limit (``NTP_PHASE_LIMIT``): an error this large means that nobody knows."""

_MAX_ERROR: Final = slice(24, 32)
"""Where ``maxerror`` lies in ``struct timex`` of every 64-bit Linux: behind an int, padding, two longs."""

_SIZE: Final = 256
"""Bytes; more than the structure has."""


def is_synchronized() -> bool:
    """Whether the wall clock is known to be within 16 s of the true time; false where it cannot be told."""
    timex = ctypes.create_string_buffer(_SIZE)
    try:
        if ctypes.CDLL(None).adjtimex(timex) < 0:
            return False
    except (OSError, AttributeError):
        return False
    return int.from_bytes(timex.raw[_MAX_ERROR], sys.byteorder) < _UNSYNCHRONIZED_US
