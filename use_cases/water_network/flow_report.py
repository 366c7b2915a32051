"""The report's part on the real flow record."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fleet_protocol.manifest import Manifest, Runtime
from use_cases.water_network import models_folder, record
from use_cases.water_network.alarms import AlarmRule, Scores, count_alarms, persistent
from use_cases.water_network.markdown import table as markdown
from use_cases.water_network.record import STEP_S, Run, Segment
from use_cases.water_network.runtimes import Floats, Model, float_model, load_manifest, open_model

MODEL: Final = "flow_day"
RULE: Final = AlarmRule(for_windows=2, cooldown=24)
"""The same numbers as in ``policies/flow.toml``."""
_HOURS_A_WEEK: Final = 168
_CHART_MEMORY: Final = 0.2

Score = Callable[[Floats], Scores]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores over the threshold (1 and more is an alarm) of one piece of the record, by hour."""

    times: NDArray[np.int64]
    scores: Scores


def text() -> str:
    """The part as Markdown."""
    folder = models_folder() / MODEL
    manifest = load_manifest(folder)
    width = manifest.features[0].length
    detectors = [
        ("fixed limits (least and most of the prefix)", _limits),
        ("EWMA chart", _chart),
        ("model, int8, LiteRT", _reconstruction(manifest, open_model(folder, Runtime.LITERT))),
        ("model, int8, OpenVINO", _reconstruction(manifest, open_model(folder, Runtime.OPENVINO))),
        ("model, float", _reconstruction(manifest, float_model(MODEL))),
    ]
    rows = [_row(name, score, width) for name, score in detectors]
    head = ["detector", *(segment.name for segment in record.segments()), "false alarms", "in weeks"]
    return _TEMPLATE.format(prefix=len(record.clean_prefix()), table=markdown([head, *rows]))


def days(run: Run, width: int) -> Floats:
    """Every ``width`` hours in a row of ``run``; none if it is shorter."""
    return (
        sliding_window_view(run.flow, width) if len(run.flow) >= width else np.empty((0, width), np.float32)
    )


def _reconstruction(manifest: Manifest, model: Model) -> Score:
    feature, threshold = manifest.features[0], manifest.output.threshold

    def score(windows: Floats) -> Scores:
        given = np.asarray((windows - feature.center) / feature.scale, dtype=np.float32)
        return np.asarray(np.square(model(given) - given).mean(axis=1) / threshold)

    return score


def _limits(windows: Floats) -> Scores:
    prefix = record.clean_prefix()
    half = (prefix.max() - prefix.min()) / 2
    return np.asarray(np.abs(windows[:, -1] - (prefix.max() + prefix.min()) / 2) / half)


def _chart(windows: Floats) -> Scores:
    """The moving average over the window, against three of its own spreads in the prefix."""
    prefix = record.clean_prefix()
    weights = _CHART_MEMORY * (1 - _CHART_MEMORY) ** np.arange(windows.shape[1])[::-1]
    spread = prefix.std() * np.sqrt(_CHART_MEMORY / (2 - _CHART_MEMORY))
    return np.asarray(np.abs((windows - prefix.mean()) @ weights) / (3 * spread), dtype=np.float32)


def _row(name: str, score: Score, width: int) -> list[str]:
    pieces = [
        Scored(run.times()[width - 1 :], score(days(run, width)))
        for run in record.runs()
        if len(run.flow) >= width
    ]
    marked = record.segments()
    false, weeks = _false_alarms(pieces, marked, width)
    return [name, *(_found(pieces, segment, width) for segment in marked), str(false), f"{weeks:.1f}"]


def _found(pieces: list[Scored], segment: Segment, width: int) -> str:
    for piece in pieces:
        touched = (piece.times >= segment.start_s) & (piece.times <= segment.end_s + (width - 1) * STEP_S)
        held = np.flatnonzero(touched[RULE.for_windows - 1 :] & (persistent(piece.scores, RULE) >= 1.0))
        if len(held):
            at = int(piece.times[held[0] + RULE.for_windows - 1])
            when = f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M} UTC"
            return f"{when}, after {(at - segment.start_s) // STEP_S} h"
    return "not found"


def _false_alarms(pieces: list[Scored], marked: tuple[Segment, ...], width: int) -> tuple[int, float]:
    """Alarms, and weeks, of windows that no segment touches."""
    alarms, hours = 0, 0
    for piece in pieces:
        clear = np.ones(len(piece.times), dtype=bool)
        for segment in marked:
            clear &= (piece.times < segment.start_s) | (piece.times > segment.end_s + (width - 1) * STEP_S)
        held = persistent(piece.scores, RULE) >= 1.0
        alarms += count_alarms(held & clear[RULE.for_windows - 1 :], RULE)
        hours += int(clear.sum())
    return alarms, hours / _HOURS_A_WEEK


_TEMPLATE: Final = """## The real flow record

Hourly flow in a main, March to May 2022, from the `river` package; labels and reasons are in `labels.toml`.
The model and every limit come from the {prefix} hours before the first anomaly alone, and from what
`training/flow.py` states that normal days may look like. One record with four segments proves little, and it
was looked at whole to be labeled: read this as a demonstration on real data, not as a blind test. An alarm
while the window of 24 hours still holds hours of a segment counts to that segment.

{table}
"""
