"""The model manifest: what a model is, what it needs, and how to know that it still answers right.

A model is a folder with ``manifest.json`` and the files that it names. The manifest says how the
window of each metric becomes the input tensor, how the output tensor becomes named answers, and
carries golden inputs with the answers expected of them, so that a device can tell whether *its*
kernels still compute the model.
"""

import hashlib
import math
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ManifestError
from fleet_protocol.messages import Line, Name
from fleet_protocol.texts import _

MAX_MANIFEST: Final = 256 * 1024
"""Bytes; a manifest is a page of text, not a data set."""

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class Runtime(StrEnum):
    """An inference runtime that an agent may have."""

    LITERT = "litert"
    OPENVINO = "openvino"
    TFLITE = "tflite"


class Precision(StrEnum):
    """What a runtime may compute in; OpenVINO silently picks bf16 on some CPUs unless told."""

    F32 = "f32"
    BF16 = "bf16"


class FeatureKind(StrEnum):
    """How the window of one metric becomes numbers; the functions are in the agent's pipeline."""

    STANDARD = "standard"
    SEASONAL = "seasonal"
    PROFILE = "profile"


class OutputKind(StrEnum):
    """How the output tensor is read."""

    CLASSIFICATION = "classification"
    RECONSTRUCTION = "reconstruction"


class ElementType(StrEnum):
    """Element type of a tensor."""

    INT8 = "int8"
    UINT8 = "uint8"
    FLOAT32 = "float32"


class CelType(StrEnum):
    """Type of a named answer as a policy rule sees it."""

    DOUBLE = "double"
    STRING = "string"
    INT = "int"
    BOOL = "bool"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the model, by content."""

    name: FileName
    sha256: Digest
    size: Positive


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and number format at the model's edge: ``real = (q - zero_point) * scale``.

    The first dimension is the batch and is fixed at 1. A float tensor has scale 1, zero point 0.
    """

    shape: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=6)]
    dtype: ElementType
    scale: float = 1.0
    zero_point: Annotated[int, msgspec.Meta(ge=-128, le=255)] = 0

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one metric's window becomes ``length`` numbers of the input.

    ``standard``: the last ``length`` samples, ``(x - center) / scale``.
    ``seasonal``: the last ``length`` samples less the mean at the same place in the ``cycles``
    whole periods before them, over the spread of those periods (the root mean square of what they
    differ from that mean), never less than ``scale``; one period is ``length`` samples.
    ``profile``: the usual course of a period, which says where in it the window ends: the same mean
    of the ``cycles`` periods, less its average, over its spread, never less than ``scale``.
    """

    metric: Identifier
    kind: FeatureKind
    length: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    center: float = 0.0
    scale: float = 1.0
    cycles: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0

    @property
    def window(self) -> int:
        """How many samples of the metric it needs."""
        return self.length * (1 + self.cycles)


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the output tensor becomes ``label``, ``score`` and ``confidence``.

    ``classification``: softmax over ``labels``; score is the probability of ``alarm_label``,
    label the likeliest, confidence its probability. One output for two labels is that probability
    itself.
    ``reconstruction``: score is the mean squared difference from the input over ``threshold``;
    label is ``alarm_label`` from 1 on, else the first of ``labels``; confidence falls to 0.5 at
    the threshold.
    """

    kind: OutputKind
    labels: Annotated[tuple[Line, ...], msgspec.Meta(min_length=2, max_length=1000)]
    alarm_label: str
    threshold: float = 1.0


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Real inputs with the outputs expected of them (NumPy ``.npz`` with ``inputs``, ``outputs``).

    Both arrays hold real numbers, not quantized ones: ``inputs`` (n, *input shape without batch),
    ``outputs`` (n, *output shape without batch). ``tolerance`` is the largest accepted absolute
    difference; ``agreement`` the least share of equal labels. Kernels of one runtime already
    differ by some steps of the quantization, so equality is never asked.
    """

    file: FileName
    tolerance: float
    agreement: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device must have to be given this model."""

    min_memory_mib: Annotated[int, msgspec.Meta(ge=0)] = 0
    machines: tuple[str, ...] = ()


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model for some runtimes, named by its main file; ``weights`` is a companion beside it."""

    file: FileName
    runtimes: Annotated[tuple[Runtime, ...], msgspec.Meta(min_length=1)]
    input: Tensor
    output: Tensor
    weights: FileName | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model, whole. ``release`` only grows; a device never goes back below the highest it took."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Identifier
    version: Name
    release: Positive
    licence: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    description: Annotated[str, msgspec.Meta(max_length=1000)]
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=64)]
    variants: Annotated[tuple[ModelFile, ...], msgspec.Meta(min_length=1, max_length=8)]
    step_s: Annotated[float, msgspec.Meta(gt=0.0)]
    features: Annotated[tuple[Feature, ...], msgspec.Meta(min_length=1, max_length=64)]
    output: Output
    precision: Precision = Precision.F32
    golden: Golden
    hardware: Hardware = msgspec.field(default_factory=Hardware)

    @property
    def answers(self) -> dict[str, CelType]:
        """The named answers that the model gives, with the type that a policy rule sees."""
        return _ANSWERS[self.output.kind]

    def file(self, name: str) -> File:
        """The entry of the file ``name``.

        Raises:
            ManifestError: there is none.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise ManifestError(
            _("{model}: no file {name!r} in the list of files").format(model=self.name, name=name)
        )

    def variant(self, runtime: Runtime) -> ModelFile | None:
        """The first variant that ``runtime`` can run, or none."""
        return next((each for each in self.variants if runtime in each.runtimes), None)


_DECODER: Final = msgspec.json.Decoder(Manifest)
_LABELED: Final = {
    "label": CelType.STRING,
    "score": CelType.DOUBLE,
    "confidence": CelType.DOUBLE,
}
_ANSWERS: Final = {OutputKind.CLASSIFICATION: _LABELED, OutputKind.RECONSTRUCTION: _LABELED}


def parse(content: bytes) -> Manifest:
    """The manifest that ``content`` (JSON) holds, checked for contradictions.

    Raises:
        ManifestError: with what is wrong and where.
    """
    if len(content) > MAX_MANIFEST:
        raise ManifestError(
            _("manifest of {size} bytes; at most {limit}").format(size=len(content), limit=MAX_MANIFEST)
        )
    try:
        manifest = _DECODER.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(_("manifest.json does not parse: {reason}").format(reason=error)) from None
    for problem in _contradictions(manifest):
        raise ManifestError(f"{manifest.name}: {problem}")
    return manifest


def encode(manifest: Manifest) -> bytes:
    """``manifest`` as indented JSON with a final line break."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def verify_file(entry: File, content: bytes) -> None:
    """Check ``content`` against its entry.

    Raises:
        ManifestError: length or digest differ.
    """
    if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ManifestError(
            _(
                "{name} is not the file that the manifest names (length or SHA-256 differs); "
                "fetch the model again"
            ).format(name=entry.name)
        )


def _contradictions(manifest: Manifest) -> list[str]:
    problems = []
    known = {entry.name for entry in manifest.files}
    named = {manifest.golden.file}
    given = sum(feature.length for feature in manifest.features)
    for variant in manifest.variants:
        named |= {variant.file} | ({variant.weights} if variant.weights else set())
        problems += _tensor_problems(variant, given)
    problems += [
        _("file {name!r} is named but not listed").format(name=name) for name in sorted(named - known)
    ]
    for feature in manifest.features:
        problems += _feature_problems(feature)
    if manifest.output.alarm_label not in manifest.output.labels:
        problems.append(
            _("alarm label {label!r} is not among the labels").format(label=manifest.output.alarm_label)
        )
    return problems


def _feature_problems(feature: Feature) -> list[str]:
    problems = []
    if not (feature.scale > 0 and math.isfinite(feature.scale)):
        problems.append(_("feature of {metric!r}: scale must be above 0").format(metric=feature.metric))
    if feature.kind is not FeatureKind.STANDARD and feature.cycles < 1:
        problems.append(
            _("feature of {metric!r}: {kind} needs at least one cycle").format(
                metric=feature.metric, kind=feature.kind
            )
        )
    return problems


def _tensor_problems(variant: ModelFile, given: int) -> list[str]:
    problems = []
    for tensor in (variant.input, variant.output):
        if tensor.shape[0] != 1:
            problems.append(_("{file}: the batch is fixed at 1").format(file=variant.file))
        if not (tensor.scale > 0 and math.isfinite(tensor.scale)):
            problems.append(_("{file}: a scale must be above 0").format(file=variant.file))
    if variant.input.elements != given:
        problems.append(
            _("{file} takes {taken} numbers, the features give {given}").format(
                file=variant.file, taken=variant.input.elements, given=given
            )
        )
    return problems
