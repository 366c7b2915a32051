"""How long an account is closed after wrong passwords. Pure.

The wait doubles with every failure, up to a quarter of an hour: whoever guesses gets a hundred tries a
day, whoever mistypes waits seconds, and nobody is locked out for good by a stranger.
"""

from typing import Final

FREE: Final = 4
"""Failures in a row without any wait: a person mistypes."""

FIRST_MS: Final = 1_000
LONGEST_MS: Final = 900_000


def wait_ms(failures: int) -> int:
    """For how long nothing is tried after so many ``failures`` in a row."""
    beyond = failures - FREE
    if beyond <= 0:
        return 0
    # Not a number of a million digits, however often somebody fails.
    return min(LONGEST_MS, FIRST_MS << min(beyond - 1, LONGEST_MS.bit_length()))
