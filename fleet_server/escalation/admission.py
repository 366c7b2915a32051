"""What is let in: a received message becomes a question of one device, or a refusal. Pure.

The broker confines a device to its own topics; what it cannot check is checked here: that the
answer goes to who asked, that the key of the question is the question's, that its numbers are
numbers.
"""

import math
from array import array
from dataclasses import dataclass, field
from typing import Final

from fleet_protocol.central import CentralManifest
from fleet_protocol.errors import MessageError, TopicError
from fleet_protocol.messages import ClockState, Request, decode
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, parse, topic
from fleet_server.escalation.backend import FLOAT32_BYTES
from fleet_server.escalation.windows import Grid
from fleet_server.link.mqtt import Arrival

CLOCK_TOLERANCE_MS: Final = 3_600_000
"""A device's clock further off than this, or one that it does not trust itself, does not date a window."""

_LEAST_STEP_MS: Final = 1.0
_MS_PER_S: Final = 1000
_US_PER_MS: Final = 1000


@dataclass(slots=True)
class Question:
    """A request that follows the protocol, from ``device``.

    ``left_ms`` is how much of its deadline was left when it was received; ``arrivals`` are all
    messages that brought it.
    """

    device: str
    request: Request
    payload: bytes
    received_ms: int
    left_ms: int
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.device, self.request.id


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that is no question, and why; ``device`` is empty where the topic names none."""

    arrival: Arrival
    device: str
    reason: str


def admit(arrival: Arrival) -> Question | Refusal:
    """Check topic, flags, properties and payload of ``arrival``."""
    try:
        device, channel = parse(arrival.topic)
    except TopicError as error:
        return Refusal(arrival, "", str(error))
    if reason := _objection(arrival, device, channel):
        return Refusal(arrival, device, reason)
    try:
        request = decode(channel, arrival.payload, arrival.content_type)
    except MessageError as error:
        return Refusal(arrival, device, str(error))
    if not isinstance(request, Request):
        return Refusal(arrival, device, _("this is no question"))
    if arrival.correlation != bytes.fromhex(request.id):
        return Refusal(arrival, device, _("the correlation data is not the question's id"))
    left_ms = request.deadline_ms - _waited_ms(request, arrival.expiry_s)
    return Question(device, request, arrival.payload, arrival.received_ms, left_ms, [arrival])


def objection(question: Question, manifest: CentralManifest) -> str | None:
    """Why the central model of ``manifest`` cannot be asked this; nothing where it can."""
    request = question.request
    names = [series.metric for series in request.series]
    is_step = _LEAST_STEP_MS <= request.step_ms <= manifest.step_s * _MS_PER_S
    objections = (
        (
            request.model not in manifest.serves,
            _("the central model does not serve {model}").format(model=request.model),
        ),
        (question.device not in manifest.gateways, _("the central model does not know this device")),
        (not is_step, _("a step of {step} ms is not of this model").format(step=request.step_ms)),
        (len(set(names)) < len(names), _("a metric stands there twice")),
        (
            not any(metric.name in names for metric in manifest.metrics),
            _("no metric of the central model is there"),
        ),
        (
            not all(_is_numbers(series.values) for series in request.series),
            _("a series holds what is no number"),
        ),
    )
    return next((reason for holds, reason in objections if holds), None)


def grid(question: Question, manifest: CentralManifest) -> Grid:
    """The steps that the question is about, by the server's clock where the device's is not believed."""
    request = question.request
    is_credible = (
        request.clock is ClockState.TRUSTED
        and abs(request.wall_ms - question.received_ms) <= CLOCK_TOLERANCE_MS
    )
    end_ms = request.wall_ms if is_credible else question.received_ms
    return Grid(end_ms, round(request.step_ms * _US_PER_MS), manifest.steps)


def _objection(arrival: Arrival, device: str, channel: Channel) -> str | None:
    """What speaks against the message before its payload is looked at."""
    if arrival.is_broken:
        return _("the packet is against the rules of MQTT")
    if channel is not Channel.REQUEST:
        return _("no question comes on {channel}").format(channel=channel.value)
    if arrival.retain:
        return _("{channel} must not be published as retained").format(channel=channel.value)
    if arrival.response_topic != topic(device, Channel.ANSWER):
        return _("the response topic is not the device's own {channel}").format(channel=Channel.ANSWER.value)
    return None


def _waited_ms(request: Request, expiry_s: int | None) -> int:
    """How long it lay in the broker, which counts the expiry down in whole seconds.

    A sender gives the expiry as its deadline rounded up; another one is not looked at.
    """
    whole_s = -(-request.deadline_ms // _MS_PER_S)
    return max(0, whole_s - expiry_s) * _MS_PER_S if expiry_s is not None else 0


def _is_numbers(values: bytes) -> bool:
    return len(values) % FLOAT32_BYTES == 0 and all(map(math.isfinite, array("f", values)))
