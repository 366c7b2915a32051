"""The states of an update on a device, and which may follow which. Pure.

The device writes the next state down before it acts, so that after a power cut it knows what it was
about to do. Every way ends in ``committed``, ``rolled_back`` or ``failed``; the device then runs
either the new version or the one before, and the artifact's next update begins at ``idle`` again. What
runs in shadow stays on trial: from ``committed`` too it is rolled back when it fails.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class UpdateState(StrEnum):
    """Where the update of one artifact stands."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    STAGED = "staged"
    TESTING = "testing"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


_S = UpdateState

TRANSITIONS: Final[Mapping[UpdateState, frozenset[UpdateState]]] = {
    _S.IDLE: frozenset({_S.DOWNLOADING, _S.FAILED}),
    _S.DOWNLOADING: frozenset({_S.VERIFIED, _S.FAILED}),
    _S.VERIFIED: frozenset({_S.STAGED, _S.FAILED}),
    _S.STAGED: frozenset({_S.TESTING, _S.FAILED}),
    _S.TESTING: frozenset({_S.ACTIVATING, _S.FAILED}),
    _S.ACTIVATING: frozenset({_S.PROBATION, _S.ROLLING_BACK}),
    _S.PROBATION: frozenset({_S.COMMITTED, _S.ROLLING_BACK}),
    _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK}),
    _S.COMMITTED: frozenset({_S.IDLE, _S.ROLLING_BACK}),
    _S.ROLLED_BACK: frozenset({_S.IDLE}),
    _S.FAILED: frozenset({_S.IDLE}),
}
"""The states that may follow each state; what is not here is a fault of whoever asks for it."""

FINAL: Final = frozenset({_S.COMMITTED, _S.ROLLED_BACK, _S.FAILED})
"""States in which an update is over."""


def may_follow(before: UpdateState, after: UpdateState) -> bool:
    """Whether ``after`` may follow ``before``."""
    return after in TRANSITIONS[before]
