"""What the children say that build and try a slot: one JSON document each, on standard output."""

from typing import Final

import msgspec

from fleet_protocol.targets import Refusal

MAX_ANSWER: Final = 256 * 1024
"""Bytes."""


class Built(msgspec.Struct, frozen=True, tag="built"):
    """The slot is whole; what the build says of itself."""

    name: str
    version: str
    release: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The artifact is not in the form of its kind."""

    refusal: Refusal
    detail: str


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The device's own files are in the way."""

    detail: str


class Findings(msgspec.Struct, frozen=True, tag="findings"):
    """What an agent's software found when it tried itself on this device.

    A newer version may say more. ``spool_schema`` is what it would write.
    """

    agent: str
    spool_schema: int
    problems: list[str]


Outcome = Built | Refused | Broken
BUILD_DECODER: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)
FINDINGS_DECODER: Final = msgspec.json.Decoder(Findings)
