"""What is let in: a received MQTT message becomes one typed message of one device, or a refusal.

Pure. The broker confines a device to its own topics; what a broker cannot check is checked here.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from fleet_protocol.errors import MessageError, TopicError
from fleet_protocol.messages import Message, decode
from fleet_protocol.texts import _
from fleet_protocol.topics import ROOT, Channel, parse
from fleet_server.link.mqtt import Arrival
from fleet_server.telemetry.placing import Sent, parse_sent

TAKEN: Final = (Channel.TELEMETRY, Channel.EVENT, Channel.STATUS, Channel.REPORTED)
"""The channels that ingest subscribes to."""


_parse: Final = lru_cache(16_384)(parse)


class Admitted(NamedTuple):
    """A message that follows the protocol, from ``device``."""

    arrival: Arrival
    device: str
    channel: Channel
    message: Message
    sent: Sent | None


class Refusal(NamedTuple):
    """A message that is not taken, and why; ``device`` is empty where the topic names none."""

    arrival: Arrival
    device: str
    reason: str


class Judged(NamedTuple):
    """Messages that were looked at, the good and the bad."""

    admitted: list[Admitted]
    refused: list[Refusal]


def judge(arrivals: Iterable[Arrival]) -> Judged:
    """Look at every message."""
    judged = Judged([], [])
    for arrival in arrivals:
        one = admit(arrival)
        if isinstance(one, Admitted):
            judged.admitted.append(one)
        else:
            judged.refused.append(one)
    return judged


def admit(arrival: Arrival) -> Admitted | Refusal:
    """Check topic, flags and payload of ``arrival``."""
    try:
        device, channel = _parse(arrival.topic)
    except TopicError as error:
        return Refusal(arrival, "", str(error))
    if reason := _objection(arrival, device, channel):
        return Refusal(arrival, device, reason)
    try:
        message = decode(channel, arrival.payload, arrival.content_type)
    except MessageError as error:
        return Refusal(arrival, device, str(error))
    return Admitted(arrival, device, channel, message, parse_sent(arrival.sent))


def _objection(arrival: Arrival, device: str, channel: Channel) -> str | None:
    """What speaks against the message before its payload is looked at."""
    if arrival.is_broken:
        return _("the packet is against the rules of MQTT")
    if channel not in TAKEN:
        return _("ingest takes nothing from {channel}").format(channel=channel.value)
    if arrival.retain and not channel.delivery.retained:
        return _("{channel} must not be published as retained").format(channel=channel.value)
    if arrival.response_topic and not arrival.response_topic.startswith(f"{ROOT}/{device}/down/"):
        return _("the response topic is not the device's own")
    return None
