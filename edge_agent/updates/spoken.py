"""What the agent asks a look, and what the look says: one JSON document in, JSON lines out."""

from typing import Final

import msgspec

from edge_agent.updates.ledger import Budget
from fleet_protocol.delivery import ANY, Delivery
from fleet_protocol.manifest import Digest
from fleet_protocol.targets import Kind, Refusal, Target
from fleet_protocol.versions import OrderedVersion

MAX_LINE: Final = 256 * 1024
"""Bytes of one line; as many orders as there may be, with the longest names, are told in one."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One look. Either ``url`` with ``ca``, or ``bundle``, says where to look.

    ``folder`` is the agent's folder of updates. ``now_ms`` is the wall clock where it can be
    believed, else 0; without ``check_dates`` TLS does not look at validity dates. ``server`` is where
    the device proves itself with ``certificate`` and ``key``, empty where nobody asks who it is.
    ``having`` are the digests that run or are under way, ``failed`` those that failed here, ``bases``
    those to which a delta may be asked for, the likeliest first.

    ``terms`` are this device's own, in the ``time_zone``; ``budget`` is what one artifact may cost, and
    ``delta_mib`` the memory that making it from another may take.
    """

    device: str
    folder: str
    image_root: str
    director_root: str
    url: str = ""
    ca: str = ""
    server: str = ""
    certificate: str = ""
    key: str = ""
    bundle: str = ""
    now_ms: int = 0
    check_dates: bool = True
    profile: str = ""
    having: list[tuple[Kind, str, Digest]] = []
    busy: list[tuple[Kind, str]] = []
    failed: list[tuple[Kind, str, Digest]] = []
    bases: list[tuple[Kind, str, Digest]] = []
    terms: Delivery = ANY
    time_zone: str = "UTC"
    budget: Budget = Budget()
    delta_mib: int = 0


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """``done`` of ``size`` bytes are here: the target's, or a delta's; ``fetched``: in all tries."""

    target: Target
    done: int
    size: int = 0
    fetched: int = 0


class Held(msgspec.Struct, frozen=True, tag="held"):
    """It is ordered and may not be fetched now; it may in ``again_s``, None where time does not help.

    ``spent``: the line has cost what it may cost.
    """

    target: Target
    detail: str
    again_s: float | None = None
    spent: bool = False


class Noted(msgspec.Struct, frozen=True, tag="noted"):
    """For the log."""

    detail: str


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """Both repositories vouch for it, it fits, and its bytes lie verified in ``file``."""

    target: Target
    file: str


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """It is ordered, and another update of the same artifact is under way: ask again when that is over."""

    target: Target


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It must not be accepted; without a target it is a repository, or an order that cannot be read."""

    refusal: Refusal
    scope: str
    detail: str
    target: Target | None = None


class Unreachable(msgspec.Struct, frozen=True, tag="unreachable"):
    """The rest of the look did not come about; what was said before stands."""

    detail: str


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The device's own files are in the way."""

    detail: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The look is over; ``ordered`` is all that is ordered, by key and digest, ``orders`` in full."""

    ordered: list[tuple[Kind, str, Digest]]
    orders: list[OrderedVersion] = []


Said = Progress | Held | Noted | Accepted | Waiting | Refused | Unreachable | Broken | Done

ENCODER: Final = msgspec.json.Encoder()
ASK_DECODER: Final = msgspec.json.Decoder(Ask)
SAID_DECODER: Final = msgspec.json.Decoder(Said)
