"""The manifest of a central model: one that sees the windows of many gateways at once.

A central model is a folder with ``central.json`` and the files that it names. Its graph takes two
float32 tensors of shape ``(1, gateways, metrics, steps)``, oldest step first: ``readings``, and
``mask``, 1 where something was measured and 0 where not (the reading is 0 there). Which gateway and
which metric stands at which place is said here; steps are spaced as the asking device says. It
gives ``probabilities``, float32 ``(1, labels)``. Features, scaling and softmax are inside the graph,
so that a server which knows this page can serve any such model.

The newest steps of the gateways that did not ask are often not there yet: a model has to be trained
with such holes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from fleet_protocol.errors import CentralError
from fleet_protocol.manifest import MAX_MANIFEST, File, FileName, Identifier, Positive
from fleet_protocol.messages import Line, Name
from fleet_protocol.texts import _

FILE_NAME: Final = "central.json"
READINGS: Final = "readings"
MASK: Final = "mask"
PROBABILITIES: Final = "probabilities"

MAX_NUMBERS: Final = 16 * 1024 * 1024
"""Numbers of one input tensor: 64 MiB."""

_SUM_TOLERANCE: Final = 0.01
"""How far from 1 the probabilities may add up; more is no distribution."""

Gateway = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]


class CentralMetric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric that the model reads of every gateway; readings in another unit are not its own."""

    name: Name
    unit: Line


class CentralManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A central model, whole.

    ``file`` is its main file (OpenVINO ``.xml`` with its ``.bin`` beside it). ``serves`` names the
    edge models whose questions it answers. ``labels`` are in the order of the output; ``none`` is
    the one that means that nothing is wrong.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Identifier
    version: Name
    licence: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    description: Annotated[str, msgspec.Meta(max_length=1000)]
    file: FileName
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=64)]
    serves: Annotated[tuple[Identifier, ...], msgspec.Meta(min_length=1, max_length=64)]
    gateways: Annotated[tuple[Gateway, ...], msgspec.Meta(min_length=1, max_length=10_000)]
    metrics: Annotated[tuple[CentralMetric, ...], msgspec.Meta(min_length=1, max_length=64)]
    step_s: Annotated[float, msgspec.Meta(gt=0.0)]
    steps: Positive
    labels: Annotated[tuple[Line, ...], msgspec.Meta(min_length=2, max_length=10_000)]
    none: Line

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of both inputs: (1, gateways, metrics, steps)."""
        return 1, len(self.gateways), len(self.metrics), self.steps


class Verdict(NamedTuple):
    """What the central model says: the likeliest label, and how likely it is that something is wrong."""

    label: str
    score: float
    confidence: float


_DECODER: Final = msgspec.json.Decoder(CentralManifest)


def parse(content: bytes) -> CentralManifest:
    """The manifest that ``content`` (JSON) holds, checked for contradictions.

    Raises:
        CentralError: with what is wrong and where.
    """
    if len(content) > MAX_MANIFEST:
        raise CentralError(
            _("{file} of {size} bytes; at most {limit}").format(
                file=FILE_NAME, size=len(content), limit=MAX_MANIFEST
            )
        )
    try:
        manifest = _DECODER.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise CentralError(
            _("{file} does not parse: {reason}").format(file=FILE_NAME, reason=error)
        ) from None
    problem = _contradiction(manifest)
    if problem:
        raise CentralError(f"{manifest.name}: {problem}")
    return manifest


def encode(manifest: CentralManifest) -> bytes:
    """``manifest`` as indented JSON with a final line break."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read_verdict(manifest: CentralManifest, probabilities: Sequence[float]) -> Verdict:
    """What the output of the model says; score is 1 less the probability of ``none``.

    Raises:
        CentralError: it is no distribution over the labels.
    """
    if len(probabilities) != len(manifest.labels) or not _is_distribution(probabilities):
        raise CentralError(
            _("{model} gave no probabilities over its {labels} labels; look at its graph").format(
                model=manifest.name, labels=len(manifest.labels)
            )
        )
    confidence = max(probabilities)
    label = manifest.labels[probabilities.index(confidence)]
    none = probabilities[manifest.labels.index(manifest.none)]
    return Verdict(label, min(max(1.0 - none, 0.0), 1.0), min(confidence, 1.0))


def _is_distribution(values: Sequence[float]) -> bool:
    # A sum with a NaN or an infinity is not near 1 either.
    return min(values) >= 0.0 and math.isclose(sum(values), 1.0, abs_tol=_SUM_TOLERANCE)


def _contradiction(manifest: CentralManifest) -> str:
    files = [file.name for file in manifest.files]
    metrics = [metric.name for metric in manifest.metrics]
    for names in (manifest.gateways, metrics, manifest.labels, files):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            return _("{name!r} stands in one list twice").format(name=twice[0])
    if manifest.file not in files:
        return _("file {name!r} is named but not listed").format(name=manifest.file)
    if manifest.none not in manifest.labels:
        return _("label {label!r} is not among the labels").format(label=manifest.none)
    if math.prod(manifest.shape) > MAX_NUMBERS:
        return _("an input of {numbers} numbers; at most {limit}").format(
            numbers=math.prod(manifest.shape), limit=MAX_NUMBERS
        )
    return ""
