"""The topics: one subtree a device, ``argan/v1/<device>/<channel>``.

A topic carries no tenant and no site; a device keeps its topics when it is moved. The same table
gives the grammar, the quality of service, the retain flag and the broker's access rules.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fleet_protocol.errors import TopicError
from fleet_protocol.texts import _

ROOT: Final = "argan/v1"
DEVICE_ID: Final = re.compile(r"[a-z0-9-]{1,63}\Z")

# A dot cannot occur in a device id, so no device certificate can ever carry a service's name.
SERVICE_PREFIX: Final = "svc."
SERVICE_NAME: Final = re.compile(r"svc\.[a-z0-9-]{1,59}\Z")

_TOPIC: Final = re.compile(r"argan/v1/([a-z0-9-]{1,63})/((?:up|down)/[a-z]{1,16})\Z")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a channel travels: MQTT quality of service, and whether the broker keeps the last one."""

    qos: int = 1
    retained: bool = False


class Channel(Enum):
    """A leaf of a device's subtree, from the device (``up``) or to it (``down``)."""

    STATUS = "up/status"
    REPORTED = "up/reported"
    TELEMETRY = "up/telemetry"
    EVENT = "up/event"
    REQUEST = "up/request"
    REPLY = "up/reply"
    ACK = "down/ack"
    HINT = "down/hint"
    COMMAND = "down/command"
    ANSWER = "down/answer"

    @property
    def delivery(self) -> Delivery:
        """Quality of service and retain flag."""
        return Delivery(retained=self in _RETAINED)

    @property
    def is_up(self) -> bool:
        """Whether the device is the one who speaks."""
        return self.value.startswith("up/")


_RETAINED: Final = frozenset({Channel.STATUS, Channel.REPORTED, Channel.HINT})


def is_device_id(name: str) -> bool:
    """Whether ``name`` may be a device id: ``[a-z0-9-]{1,63}``."""
    return DEVICE_ID.match(name) is not None


def is_service_name(name: str) -> bool:
    """Whether ``name`` is reserved for a connection of the server itself."""
    return SERVICE_NAME.match(name) is not None


def topic(device: str, channel: Channel) -> str:
    """The topic of ``channel`` for ``device``.

    Raises:
        TopicError: ``device`` is no device id.
    """
    if not is_device_id(device):
        raise TopicError(
            _("{device!r} is no device id; use 1 to 63 of a-z, 0-9 and '-'").format(device=device[:80])
        )
    return f"{ROOT}/{device}/{channel.value}"


def parse(text: str) -> tuple[str, Channel]:
    """The device and the channel that a topic names.

    Raises:
        TopicError: the topic is outside the grammar, or of another protocol version.
    """
    match = _TOPIC.match(text)
    if match is None:
        raise TopicError(_("topic {topic!r} is not argan/v1/<device>/<channel>").format(topic=text[:120]))
    try:
        return match.group(1), Channel(match.group(2))
    except ValueError:
        raise TopicError(_("topic {topic!r} names no known channel").format(topic=text[:120])) from None


def every_device(channel: Channel) -> str:
    """The subscription filter for ``channel`` of all devices; for services only."""
    return f"{ROOT}/+/{channel.value}"


def device_access() -> tuple[tuple[str, str], ...]:
    """What a device may do, as (``write`` or ``read``, pattern) with ``%u`` for its own name."""
    return tuple(("write" if channel.is_up else "read", f"{ROOT}/%u/{channel.value}") for channel in Channel)
