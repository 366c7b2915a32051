"""Takes from the broker what was published as retained where nothing must be kept.

A broker's access list does not look at that flag; whoever subscribes later would get the message
again and again.
"""

from collections.abc import Iterable
from typing import Final

from fleet_protocol.errors import TopicError
from fleet_protocol.topics import parse
from fleet_server.link.mqtt import Arrival, Subscriber

_EXPIRY_S: Final = 60


def clear_retained(subscriber: Subscriber, refused: Iterable[Arrival]) -> None:
    """Have the broker forget what of ``refused`` it keeps and must not.

    An empty message is how MQTT says so; one that a device has sent itself has done it already.
    """
    for name in {one.topic for one in refused if one.retain and one.payload}:
        if _keeps_nothing(name):
            subscriber.publish(name, b"", _EXPIRY_S, retain=True)


def _keeps_nothing(name: str) -> bool:
    try:
        _device, channel = parse(name)
    except TopicError:
        return False
    return not channel.delivery.retained
