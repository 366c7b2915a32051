"""How a rollout proceeds: its waves, how many may fail, how long to look before going on. Pure.

Each wave names how much of the group has the artifact when the wave is over: ``10%`` or a number of
devices. Waves only grow, and the last one reaches the whole group.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from fleet_protocol.delivery import ANY, Delivery
from fleet_protocol.texts import _
from fleet_server.errors import RulesError

MAX_WAVES: Final = 20
MAX_SOAK_S: Final = 30 * 86_400
_MOST_DEVICES: Final = 1_000_000
_WHOLE: Final = 100

_SHARE: Final = re.compile(r"([0-9]{1,3})%\Z")
_COUNT: Final = re.compile(r"([0-9]{1,7})\Z")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """``soak_s``: seconds from the end of a wave to the next; more than ``max_failures`` end the rollout.

    ``delivery``: on which terms the devices fetch it.
    """

    waves: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_WAVES)]
    max_failures: Annotated[int, msgspec.Meta(ge=0, le=_MOST_DEVICES)] = 0
    soak_s: Annotated[int, msgspec.Meta(ge=0, le=MAX_SOAK_S)] = 0
    delivery: Delivery = ANY


def check(rules: Rules) -> None:
    """See to it that the waves can be read and grow.

    Raises:
        RulesError: they do not.
    """
    sizes = [_read(text) for text in rules.waves]
    for kind in (True, False):
        alike = [number for number, is_share in sizes if is_share is kind]
        if any(later <= earlier for earlier, later in pairwise(alike)):
            raise RulesError(
                _(
                    "waves must grow: {waves}; each says how much has it in all, for example 10%,50%,100%"
                ).format(waves=",".join(rules.waves))
            )


def cut(rules: Rules, devices: Iterable[str], seed: str) -> list[list[str]]:
    """``devices`` in waves: spread evenly, the same for the same ``seed``; no wave is empty.

    Raises:
        RulesError: the last wave does not reach all of them.
    """
    spread = sorted(devices, key=lambda device: hashlib.sha256(f"{seed}/{device}".encode()).digest())
    ends = [_end(text, len(spread)) for text in rules.waves]
    if ends[-1] < len(spread):
        raise RulesError(
            _("the last wave {wave} leaves out {left} of {all} devices; end with 100%").format(
                wave=rules.waves[-1], left=len(spread) - ends[-1], all=len(spread)
            )
        )
    return _slices(spread, ends)


def _slices(spread: Sequence[str], ends: Iterable[int]) -> list[list[str]]:
    waves, begin = [], 0
    for end in ends:
        if end > begin:
            waves.append(list(spread[begin:end]))
            begin = end
    return waves


def _end(text: str, devices: int) -> int:
    number, is_share = _read(text)
    # Rounded up, so that the first wave has a device however small the group is.
    return min(math.ceil(devices * number / _WHOLE) if is_share else number, devices)


def _read(text: str) -> tuple[int, bool]:
    share, count = _SHARE.match(text), _COUNT.match(text)
    if share and 0 < int(share[1]) <= _WHOLE:
        return int(share[1]), True
    if count and int(count[1]) > 0:
        return int(count[1]), False
    raise RulesError(
        _("{wave!r} is no wave; use a share like 10% or a number of devices like 5").format(wave=text[:20])
    )
