"""From output tensors to answers, against the definitions in the manifest."""

import math

import numpy as np
import pytest

from edge_agent.inference.answers import reader
from fleet_protocol.manifest import ElementType, Output, OutputKind, Tensor

LABELS = ("normal", "leak", "burst")
GIVEN = np.zeros(4, np.float32)


def classification(labels: tuple[str, ...] = LABELS, alarm: str = "leak") -> Output:
    return Output(kind=OutputKind.CLASSIFICATION, labels=labels, alarm_label=alarm)


def reconstruction(threshold: float = 0.5) -> Output:
    return Output(kind=OutputKind.RECONSTRUCTION, labels=LABELS[:2], alarm_label="leak", threshold=threshold)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [(ElementType.INT8, 0.08, -14), (ElementType.UINT8, 0.1, 128), (ElementType.FLOAT32, 1.0, 0)],
)
def test_classification_is_a_softmax_over_the_real_outputs(
    dtype: ElementType, scale: float, zero_point: int
) -> None:
    tensor = Tensor(shape=(1, 3), dtype=dtype, scale=scale, zero_point=zero_point)
    values = np.array([[12, 90, 77]], dtype=str(dtype))
    real = (values[0].astype(float) - zero_point) * scale
    probabilities = np.exp(real) / np.exp(real).sum()
    label, score, confidence = reader(classification(), tensor, 4, 1.0)(values, GIVEN)
    assert LABELS[label] == "leak"
    assert score == pytest.approx(probabilities[1])
    assert confidence == pytest.approx(probabilities.max())


def test_the_score_is_the_alarm_labels_probability_even_if_another_is_likelier() -> None:
    tensor = Tensor(shape=(1, 3), dtype=ElementType.FLOAT32)
    label, score, confidence = reader(classification(), tensor, 4, 1.0)(
        np.array([[5.0, 1.0, 0.0]], np.float32), GIVEN
    )
    assert LABELS[label] == "normal"
    assert score < 0.05
    assert confidence > 0.9


def test_huge_logits_do_not_overflow() -> None:
    tensor = Tensor(shape=(1, 2), dtype=ElementType.FLOAT32)
    read = reader(classification(LABELS[:2]), tensor, 4, 1.0)
    assert read(np.array([[-3e38, 3e38]], np.float32), GIVEN) == (1, 1.0, 1.0)


@pytest.mark.parametrize("alarm", LABELS[:2])
@pytest.mark.parametrize(("byte", "probability"), [(0, 0.0), (64, 0.25), (192, 0.75), (255, 255 / 256)])
def test_one_output_for_two_labels_is_the_alarm_labels_probability(
    alarm: str, byte: int, probability: float
) -> None:
    tensor = Tensor(shape=(1, 1), dtype=ElementType.UINT8, scale=1 / 256)
    label, score, confidence = reader(classification(LABELS[:2], alarm), tensor, 4, 1.0)(
        np.array([[byte]], np.uint8), GIVEN
    )
    assert (LABELS[label] == alarm) == (probability >= 0.5)
    assert score == probability
    assert confidence == max(probability, 1 - probability)


@pytest.mark.parametrize("unit", [1.0, 0.03])
def test_reconstruction_is_the_mean_squared_difference_over_the_threshold(unit: float) -> None:
    tensor = Tensor(shape=(1, 4), dtype=ElementType.INT8, scale=0.1, zero_point=5)
    real = np.array([0.3, -0.2, 1.0, 0.0], np.float32)
    values = np.array([[10, 0, 30, 5]], np.int8)
    rebuilt = (values[0].astype(float) - 5) * 0.1
    wanted = float(((rebuilt - real) ** 2).mean()) / 0.5
    label, score, confidence = reader(reconstruction(), tensor, 4, unit)(
        values, np.asarray(real / unit, np.float32)
    )
    assert score == pytest.approx(wanted, rel=1e-5)
    assert LABELS[label] == ("leak" if wanted >= 1 else "normal")
    assert confidence == pytest.approx(1 - wanted / 2 if wanted < 1 else 1 - 0.5 / wanted)


def test_confidence_is_half_at_the_threshold_and_grows_on_both_sides() -> None:
    tensor = Tensor(shape=(1, 4), dtype=ElementType.FLOAT32)
    read = reader(reconstruction(1.0), tensor, 4, 1.0)
    answers = [read(np.full((1, 4), size, np.float32), GIVEN) for size in (0.0, 0.5, 1.0, 2.0, 50.0)]
    assert [LABELS[label] for label, _score, _confidence in answers] == ["normal"] * 2 + ["leak"] * 3
    assert [confidence for *_rest, confidence in answers] == pytest.approx([1.0, 0.875, 0.5, 0.875, 0.9998])


EACH_KIND = pytest.mark.parametrize(
    ("output", "shape"),
    [(classification(), (1, 3)), (classification(LABELS[:2]), (1, 1)), (reconstruction(), (1, 4))],
    ids=["softmax", "probability", "reconstruction"],
)
NO_NUMBERS = pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])


@EACH_KIND
@NO_NUMBERS
def test_a_window_of_what_is_no_number_has_no_answer(
    output: Output, shape: tuple[int, ...], number: float
) -> None:
    read = reader(output, Tensor(shape=shape, dtype=ElementType.FLOAT32), 4, 1.0)
    with pytest.raises(ValueError, match="window holds"):
        read(np.zeros(shape, np.float32), np.full(4, number, np.float32))


@EACH_KIND
@NO_NUMBERS
def test_an_answer_is_finite_or_there_is_none(output: Output, shape: tuple[int, ...], number: float) -> None:
    """One that is no number could not even be sent."""
    read = reader(output, Tensor(shape=shape, dtype=ElementType.FLOAT32), 4, 1.0)
    for values in (np.full(shape, number, np.float32), np.eye(*shape, dtype=np.float32) * np.float32(3e38)):
        values[0, 0] = number
        try:
            answer = read(values, GIVEN)
        except ValueError as error:
            assert "model gave" in str(error)  # noqa: PT017 - which numbers have an answer is free
        else:
            assert all(map(math.isfinite, answer))


@pytest.mark.parametrize(
    ("output", "shape"),
    [(classification(), (1, 2)), (classification(), (1, 1)), (reconstruction(), (1, 5))],
)
def test_shapes_that_cannot_hold_the_answers_are_refused(output: Output, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be read from"):
        reader(output, Tensor(shape=shape, dtype=ElementType.INT8, scale=0.1), 4, 1.0)
