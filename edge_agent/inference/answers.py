"""From the output tensor to an answer: what the manifest's kinds of output mean, in numbers."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.runtime import Array
from fleet_protocol.manifest import Output, OutputKind, Tensor
from fleet_protocol.texts import _, mark

Vector = NDArray[np.float32]


Scored = tuple[int, float, float]
"""Label (its place in the manifest's labels), score, confidence; a plain tuple, made for every window."""

Read = Callable[[Array, Vector], Scored]
"""Output tensor and input to answer; ValueError where the input holds what is no number."""


def reader(output: Output, tensor: Tensor, inputs: int, unit: float) -> Read:
    """What reads outputs of the shape and format ``tensor`` of a model of ``inputs`` numbers.

    Args:
        output: how to read them.
        tensor: the output tensor.
        inputs: how many numbers the model takes.
        unit: what the input numbers are counted in.

    Raises:
        ValueError: the tensor cannot hold such answers.
    """
    elements, labels = tensor.elements, len(output.labels)
    match output.kind:
        case OutputKind.CLASSIFICATION if elements == labels:
            return _softmax(output, tensor)
        case OutputKind.CLASSIFICATION if elements == 1 and labels == 2:  # noqa: PLR2004 - yes or no
            return _probability(output, tensor)
        case OutputKind.RECONSTRUCTION if elements == inputs:
            return _reconstruction(output, tensor, unit)
    raise ValueError(
        _("{kind} of {inputs} numbers with {labels} labels cannot be read from {elements} outputs").format(
            kind=output.kind, inputs=inputs, labels=labels, elements=elements
        )
    )


def dequantizer(tensor: Tensor, unit: float) -> Callable[[Array, Vector], None]:
    """What writes a tensor's numbers, counted in ``unit``, into an array of its shape."""
    # Arrays without dimensions: NumPy takes them faster than its own scalars.
    scale = np.array(tensor.scale / unit, dtype=np.float32)
    offset = np.array(-tensor.zero_point * tensor.scale / unit, dtype=np.float32)
    multiply, add = np.multiply, np.add

    def dequantize(values: Array, out: Vector) -> None:
        out[...] = values
        multiply(out, scale, out)
        add(out, offset, out)

    return dequantize


def _require_numbers(given: Vector) -> None:
    """Quantizing hides what is no number; one product over the input finds it."""
    if not float(given.dot(given)) < _INFINITE:
        raise ValueError(_(_NO_NUMBER))


_INFINITE: Final = math.inf
_NO_NUMBER: Final = mark("the window holds what is no number")
_NO_OUTPUT: Final = mark("the model gave what is no number")


def _softmax(output: Output, tensor: Tensor) -> Read:
    """Plain floats: for the few labels of such models they are faster than array calls."""
    scale, alarm, exp = tensor.scale, output.labels.index(output.alarm_label), math.exp

    def read(values: Array, given: Vector) -> Scored:
        _require_numbers(given)
        logits: list[float] = values.reshape(-1).tolist()
        highest = max(logits)
        weights = [exp((logit - highest) * scale) for logit in logits]
        total = sum(weights)
        if not total < _INFINITE:
            raise ValueError(_(_NO_OUTPUT))
        # The highest weighs exp(0).
        return logits.index(highest), weights[alarm] / total, 1.0 / total

    return read


def _probability(output: Output, tensor: Tensor) -> Read:
    """One output for two labels is the alarm label's probability itself."""
    scale, zero_point, alarm = tensor.scale, tensor.zero_point, output.labels.index(output.alarm_label)

    def read(values: Array, given: Vector) -> Scored:
        _require_numbers(given)
        number = (float(values.item()) - zero_point) * scale
        if number != number:  # noqa: PLR0124 - only what is no number differs from itself
            raise ValueError(_(_NO_OUTPUT))
        score = min(max(number, 0.0), 1.0)
        return (alarm, score, score) if score >= 0.5 else (1 - alarm, score, 1.0 - score)  # noqa: PLR2004

    return read


def _reconstruction(output: Output, tensor: Tensor, unit: float) -> Read:
    dequantize, subtract = dequantizer(tensor, unit), np.subtract
    rebuilt = np.empty(tensor.shape, dtype=np.float32)
    difference = rebuilt.reshape(-1)
    energy = difference.dot
    share = unit * unit / (tensor.elements * output.threshold)
    alarm = output.labels.index(output.alarm_label)
    normal = next(place for place in range(len(output.labels)) if place != alarm)

    def read(values: Array, given: Vector) -> Scored:
        dequantize(values, rebuilt)
        subtract(difference, given, difference)
        score = float(energy(difference)) * share
        # Half sure at the threshold, surer the further off on either side.
        if score < 1.0:
            return normal, score, 1.0 - 0.5 * score
        if score < _INFINITE:
            return alarm, score, 1.0 - 0.5 / score
        _require_numbers(given)
        raise ValueError(_(_NO_OUTPUT))

    return read
