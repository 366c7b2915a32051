"""The messages: what is on the wire, its limits, and how it is encoded.

A *batch* is one numbered message of one stream. Numbers count within ``(epoch, stream)``, where
the epoch is random per agent process; the server acknowledges the highest contiguous number it
has committed. What an agent had to drop is told as a :class:`Gap` in the same numbering, so that
the acknowledgement can pass it.

Batches are MessagePack arrays with times as offsets from one base; a metric's definition travels
in the first batch of an epoch that uses it, and in every gap. Documents (status, reported, ack)
are MessagePack maps. The same types are spoken as JSON where the MQTT content type says so.

Decoding is total: any bytes give a message or one :class:`MessageError`, in time and memory
bounded by :data:`MAX_PAYLOAD`.
"""

import math
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Final

import msgspec

from fleet_protocol.errors import MessageError
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel

MAX_PAYLOAD: Final = 128 * 1024
"""Bytes; what is larger goes over HTTPS and is only referred to here."""

MAX_RECORDS: Final = 4096
"""Records in one batch; beyond it an agent starts the next batch."""

LAST_WALL_MS: Final = 253_402_300_799_000
"""The end of the year 9999 in ms since 1970: the last time that databases and Python both hold."""

_LINE: Final = r"^[^\x00-\x1f\x7f]*\Z"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_LINE)]
Line = Annotated[str, msgspec.Meta(max_length=200, pattern=_LINE)]
Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
WallMs = Annotated[int, msgspec.Meta(ge=0, le=LAST_WALL_MS)]
OffsetMs = Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)]
MetricId = Annotated[int, msgspec.Meta(ge=0, le=65535)]
RequestId = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]


class Stream(StrEnum):
    """A separately numbered flow; events outlive readings when an agent runs out of room."""

    TELEMETRY = "telemetry"
    EVENT = "event"

    @property
    def channel(self) -> Channel:
        """The channel that carries this stream."""
        return Channel.TELEMETRY if self is Stream.TELEMETRY else Channel.EVENT


class ClockState(IntEnum):
    """What the agent knows of its wall clock when it stamps a batch."""

    TRUSTED = 0
    UNTRUSTED = 1


class Quality(IntEnum):
    """What the driver knows of one value."""

    GOOD = 0
    SUSPECT = 1
    BAD = 2


class MetricKind(IntEnum):
    """How a metric behaves: a gauge moves freely, a counter only grows, a state is one of a few."""

    GAUGE = 0
    COUNTER = 1
    STATE = 2


class Severity(IntEnum):
    """How urgent an event or a health code is."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2


class TimeBase(msgspec.Struct, array_like=True, frozen=True):
    """One instant on both clocks of one boot, from which a batch's offsets count.

    ``mono_ms`` is milliseconds since some fixed moment of that boot; ``wall_ms`` milliseconds
    since 1970 as the device believed.
    """

    boot_id: Hex16
    mono_ms: Count
    wall_ms: WallMs
    clock: ClockState


class Metric(msgspec.Struct, array_like=True, frozen=True):
    """What a small integer stands for in the rest of the epoch; ``unit`` as in UCUM."""

    id: MetricId
    name: Name
    unit: Line
    kind: MetricKind = MetricKind.GAUGE


class Reading(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One measured value; ``offset_ms`` from the batch's base. No value where quality is bad."""

    metric: MetricId
    offset_ms: OffsetMs
    value: float | None
    quality: Quality = Quality.GOOD


class Inference(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One answer of a model: what it says, how sure it is, and what it cost in microseconds.

    ``request`` names the escalation that an uncertain answer went out with. The answer that came
    back names it too and ``supersedes`` the first; its model is the central one. ``shadow``: not its own.
    """

    offset_ms: OffsetMs
    model: Name
    version: Name
    label: Line
    score: float
    confidence: float
    latency_us: Count
    uncertain: bool = False
    request: RequestId = ""
    supersedes: bool = False
    shadow: bool = False


class Event(msgspec.Struct, array_like=True, frozen=True):
    """What a policy rule, or the agent itself, raised; ``values`` are the figures behind it."""

    offset_ms: OffsetMs
    name: Name
    severity: Severity
    text: Line
    source: Line
    values: Annotated[dict[Name, float], msgspec.Meta(max_length=64)]


class Telemetry(msgspec.Struct, array_like=True, frozen=True, tag="t1"):
    """A batch of the telemetry stream."""

    epoch: Hex16
    seq: Sequence
    base: TimeBase
    metrics: Annotated[list[Metric], msgspec.Meta(max_length=MAX_RECORDS)]
    readings: Annotated[list[Reading], msgspec.Meta(max_length=MAX_RECORDS)]
    inferences: Annotated[list[Inference], msgspec.Meta(max_length=MAX_RECORDS)]

    @property
    def first(self) -> int:
        """The first number that this message stands for."""
        return self.seq


class Events(msgspec.Struct, array_like=True, frozen=True, tag="e1"):
    """A batch of the event stream."""

    epoch: Hex16
    seq: Sequence
    base: TimeBase
    events: Annotated[list[Event], msgspec.Meta(max_length=MAX_RECORDS)]

    @property
    def first(self) -> int:
        """The first number that this message stands for."""
        return self.seq


class Gap(msgspec.Struct, array_like=True, frozen=True, tag="g1"):
    """Batches ``first`` to ``seq`` were dropped by the agent: how many records, why, from when.

    ``metrics`` are all definitions of the epoch, because the dropped batches may have carried
    them.
    """

    epoch: Hex16
    seq: Sequence
    first: Sequence
    records: Count
    reason: Name
    oldest_wall_ms: WallMs
    newest_wall_ms: WallMs
    metrics: Annotated[list[Metric], msgspec.Meta(max_length=MAX_RECORDS)]


Batch = Telemetry | Events | Gap


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the device is there; ``online=False`` is also its last will."""

    online: bool
    boot_id: Hex16
    epoch: Hex16
    agent: Name
    wall_ms: WallMs


class SensorReport(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor as the agent runs it."""

    name: Name
    kind: Name
    metrics: Annotated[list[Name], msgspec.Meta(max_length=256)]


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the agent runs it, with the policy that reads its answers."""

    name: Name
    version: Name
    release: Count
    digest: Line
    runtime: Name
    isolation: Name
    policy: Line = ""


class Disagreement(msgspec.Struct, frozen=True):
    """In so many ``windows`` the acting model said one label and the shadow the other."""

    acting: Line
    shadow: Line
    windows: Count


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a model in shadow compares: ``windows`` that it and the one that acts have both answered.

    ``agreement`` is their share with one label; latencies are medians in us; ``failures`` include ``missed``.
    """

    model: Name
    version: Name
    release: Count
    digest: Line
    against: Line = ""
    windows: Count = 0
    agreement: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    mean_difference: float = 0.0
    max_difference: float = 0.0
    disagreements: Annotated[list[Disagreement], msgspec.Meta(max_length=16)] = []
    latency_us: Count = 0
    acting_latency_us: Count = 0
    failures: Count = 0
    missed: Count = 0


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """One health code that is raised now; the words for it are in the health catalog."""

    code: Name
    since_wall_ms: WallMs
    detail: Line = ""


class UpdateReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where one artifact's last update stands; ``done`` of ``size`` bytes, ``fetched`` in all tries.

    ``state``: ``UpdateState``, ``mode``: ``Mode``, ``refusal``: ``Refusal`` or empty, ``installed``: or 0.
    """

    kind: Name
    name: Name
    release: Count
    version: Line
    state: Name
    since_wall_ms: WallMs
    mode: Name = "act"
    installed: Count = 0
    done: Count = 0
    size: Count = 0
    fetched: Count = 0
    refusal: Line = ""
    detail: Line = ""


class SpoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on the device: batches and bytes kept, records ever dropped."""

    batches: Count
    bytes: Count
    dropped_records: Count


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """The reported half of the twin: what is installed and running, and how it is."""

    agent: Name
    profile: Name
    boot_id: Hex16
    epoch: Hex16
    wall_ms: WallMs
    clock: ClockState
    sensors: Annotated[list[SensorReport], msgspec.Meta(max_length=256)]
    models: Annotated[list[ModelReport], msgspec.Meta(max_length=64)]
    health: Annotated[list[HealthReport], msgspec.Meta(max_length=256)]
    spool: SpoolReport
    updates: Annotated[list[UpdateReport], msgspec.Meta(max_length=128)] = []
    shadows: Annotated[list[ShadowReport], msgspec.Meta(max_length=64)] = []


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """``seq`` is the highest contiguous number committed in (epoch, stream); 0 for none."""

    epoch: Hex16
    stream: Stream
    seq: Count


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The application acknowledgement: up to here it is in the database."""

    marks: Annotated[list[Mark], msgspec.Meta(max_length=MAX_RECORDS)]


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """The director has something for this device. Never trusted: it only makes the device look sooner."""

    version: Count


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One metric's window: little-endian float32 numbers, oldest first."""

    metric: Name
    values: bytes


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a model could not decide; ``id`` is the idempotency key and correlation data.

    ``model``, ``version``, ``label``, ``score`` and ``confidence`` are the local answer.
    ``step_ms`` is real milliseconds between the numbers of a series; the step of the last one ended
    at ``wall_ms``. An answer later than ``deadline_ms`` after the sending is of no use.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    model: Name
    version: Name
    label: Line
    score: float
    confidence: float
    wall_ms: WallMs
    clock: ClockState
    step_ms: Annotated[float, msgspec.Meta(gt=0.0)]
    deadline_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)]
    series: Annotated[list[Series], msgspec.Meta(min_length=1, max_length=64)]


class AnswerState(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    LATE = "late"
    FAILED = "failed"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the request ``id``; ``reason`` says why there is none."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    state: AnswerState
    model: Line = ""
    version: Line = ""
    label: Line = ""
    score: float = 0.0
    confidence: float = 0.0
    reason: Line = ""


Message = Batch | Status | Reported | Ack | Hint | Request | Answer


class Format(StrEnum):
    """How a message is written; the value is its MQTT content type."""

    MSGPACK = "application/vnd.argan+msgpack"
    JSON = "application/vnd.argan+json"


_Decoder = msgspec.msgpack.Decoder[Any] | msgspec.json.Decoder[Any]

_TYPES: Final[dict[Channel, Any]] = {
    Channel.TELEMETRY: Telemetry | Gap,
    Channel.EVENT: Events | Gap,
    Channel.STATUS: Status,
    Channel.REPORTED: Reported,
    Channel.ACK: Ack,
    Channel.HINT: Hint,
    Channel.REQUEST: Request,
    Channel.ANSWER: Answer,
}
_DECODERS: Final[dict[Format, dict[Channel, _Decoder]]] = {
    Format.MSGPACK: {channel: msgspec.msgpack.Decoder(kind) for channel, kind in _TYPES.items()},
    Format.JSON: {channel: msgspec.json.Decoder(kind) for channel, kind in _TYPES.items()},
}
_ENCODERS: Final[dict[Format, msgspec.msgpack.Encoder | msgspec.json.Encoder]] = {
    Format.MSGPACK: msgspec.msgpack.Encoder(),
    Format.JSON: msgspec.json.Encoder(),
}
_UNTYPED: Final[dict[Format, _Decoder]] = {
    Format.MSGPACK: msgspec.msgpack.Decoder(),
    Format.JSON: msgspec.json.Decoder(),
}
_SPOKEN_TAGS: Final = ("t1", "e1", "g1")


def encode(message: Message, written_as: Format = Format.MSGPACK) -> bytes:
    """The bytes of ``message``."""
    return _ENCODERS[written_as].encode(message)


def decode(channel: Channel, payload: bytes, content_type: str | None = None) -> Message:
    """The message that ``payload`` holds; MessagePack where no content type is given.

    Raises:
        MessageError: too long, not of this channel, not of this version, or beyond a limit.
    """
    if len(payload) > MAX_PAYLOAD:
        raise MessageError(
            _("message of {size} bytes; at most {limit} travel over MQTT").format(
                size=len(payload), limit=MAX_PAYLOAD
            )
        )
    written_as = _format(content_type)
    decoder = _DECODERS[written_as].get(channel)
    if decoder is None:
        raise MessageError(_("nothing is spoken on {channel} yet").format(channel=channel.value))
    try:
        message: Message = decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise MessageError(_explain(channel, written_as, payload, error)) from None
    _check(message)
    return message


def _format(content_type: str | None) -> Format:
    try:
        return Format(content_type) if content_type else Format.MSGPACK
    except ValueError:
        raise MessageError(
            _("content type {given!r} is not spoken; use {known}").format(
                given=str(content_type)[:80], known=" / ".join(Format)
            )
        ) from None


def _explain(channel: Channel, written_as: Format, payload: bytes, error: Exception) -> str:
    tag = _tag_of(written_as, payload)
    if tag is not None and tag not in _SPOKEN_TAGS:
        return _("message version {tag!r} on {channel} is not known here; update the older side").format(
            tag=tag[:16], channel=channel.value
        )
    return _("no {channel} message: {reason}").format(channel=channel.value, reason=str(error)[:200])


def _tag_of(written_as: Format, payload: bytes) -> str | None:
    try:
        fields = _UNTYPED[written_as].decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError):
        return None
    first = fields[0] if isinstance(fields, list) and fields else None
    return first if isinstance(first, str) else None


def _check(message: Message) -> None:
    """Refuse what the types cannot say: numbers that are none, and a gap that ends before it starts."""
    match message:
        case Telemetry():
            values = [reading.value for reading in message.readings if reading.value is not None]
            for inference in message.inferences:
                values += (inference.score, inference.confidence)
        case Events():
            values = [value for event in message.events for value in event.values.values()]
        case Request() | Answer():
            values = [message.score, message.confidence]
        case Reported():
            values = [n for s in message.shadows for n in (s.mean_difference, s.max_difference)]
        case Gap() if message.first > message.seq:
            raise MessageError(_("a gap ends before it starts"))
        case _:
            return
    if not all(map(math.isfinite, values)):
        raise MessageError(_("a value is not a finite number; send no value and quality 'bad'"))
