"""The plots of the page: pressures and scores around the leak, rollouts, latencies. Pure."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from fleet_protocol.texts import _
from hil.page import Scale, curve, line, svg, text, ticks
from use_cases.water_network.demo.findings import Findings, Rollout, Sample

WIDTH: Final = 860.0
LEFT: Final = 46.0
RIGHT: Final = 12.0
PANEL: Final = 84.0
GAP: Final = 18.0
FOOT: Final = 22.0
AREA: Final = 110.0
BARS: Final = 130.0

MOST_POINTS: Final = 900
"""Of one line: more than that no screen shows."""

PLACES: Final[Mapping[str, str]] = {
    "done": "var(--good)",
    "probation": "var(--trial)",
    "assigned": "var(--wait)",
    "waiting": "var(--idle)",
    "withdrawn": "var(--spared)",
    "left": "var(--spared)",
    "failed": "var(--bad)",
}
"""Where a device of a rollout may be, from the bottom to the top of the curve, and its color."""

Series = Sequence[tuple[int, float]]


def panels(findings: Findings, series: Mapping[str, Series], unit: str, limit: float | None = None) -> str:
    """A panel for each device of ``series`` over the days of the plant, with the leak marked.

    ``limit`` is drawn as a dashed line.
    """
    last = max((findings.day(times[-1][0]) for times in series.values() if times), default=1.0)
    days = Scale(0.0, last, LEFT, WIDTH - RIGHT)
    height = len(series) * (PANEL + GAP) + FOOT
    bottom = height - FOOT
    parts = [_leak(findings, days, bottom), _axis(days, last, bottom)]
    for place, (device, values) in enumerate(series.items()):
        parts.append(_panel(findings, days, place * (PANEL + GAP) + GAP, device, values, limit))
    return svg(WIDTH, height, f"{unit}: {', '.join(series)}", "".join(parts))


def rollout(went: Rollout) -> str:
    """How many devices of one rollout were where, over the seconds since it began."""
    samples = went.samples
    if not samples:
        return ""
    began = samples[0].time_ms
    length = max(1.0, (samples[-1].time_ms - began) / 1000 * 1.04)
    devices = max(1, sum(samples[0].counts.values()))
    across, up = Scale(0.0, length, LEFT, WIDTH - RIGHT), Scale(0.0, devices, AREA + GAP, GAP)
    end = Sample(int(began + length * 1000), samples[-1].counts)
    bars = "".join(
        _column(across((now.time_ms - began) / 1000), across((after.time_ms - began) / 1000), now, up)
        for now, after in pairwise([*samples, end])
    )
    bottom = AREA + GAP
    marks = "".join(
        text(across(at), bottom + 14, _("{seconds:.0f} s").format(seconds=at), 'text-anchor="middle"')
        for at in ticks(length)
    )
    sides = text(LEFT - 6, up(devices) + 8, str(devices), 'text-anchor="end"') + text(
        LEFT - 6, bottom, "0", 'text-anchor="end"'
    )
    return svg(WIDTH, bottom + FOOT, went.reason, f"{bars}{marks}{sides}")


def latencies(values_ms: Sequence[int]) -> str:
    """How many readings took how long from sensor to row; every bar is a quarter of a doubling."""
    if not values_ms:
        return ""
    places = [round(4 * math.log2(max(1, value))) for value in values_ms]
    first, last = min(places), max(places)
    counts = {place: places.count(place) for place in range(first, last + 1)}
    across = Scale(first, last + 1, LEFT, WIDTH - RIGHT)
    up = Scale(0, max(counts.values()), BARS + GAP, GAP)
    bars = "".join(
        _rect(across(place), up(count), across(place + 1) - 1, BARS + GAP, "var(--wait)")
        for place, count in counts.items()
    )
    marks = "".join(
        text(
            across(place),
            BARS + GAP + 14,
            _("{ms:.0f} ms").format(ms=2 ** (place / 4)),
            'text-anchor="middle"',
        )
        for place in range(math.ceil(first / 4) * 4, last + 1, 4)
    )
    most = text(LEFT - 6, up(max(counts.values())) + 8, str(max(counts.values())), 'text-anchor="end"')
    return svg(WIDTH, BARS + GAP + FOOT, _("latency"), f"{bars}{marks}{most}")


def thin(values: Series) -> Series:
    """At most :data:`MOST_POINTS` of ``values``, with the least and the largest of every stretch."""
    if len(values) <= MOST_POINTS:
        return values
    size = math.ceil(2 * len(values) / MOST_POINTS)
    kept = []
    for start in range(0, len(values), size):
        stretch = values[start : start + size]
        ends = {min(stretch, key=lambda one: one[1]), max(stretch, key=lambda one: one[1])}
        kept += sorted(ends)
    return kept


def _panel(
    findings: Findings, days: Scale, top: float, device: str, values: Series, limit: float | None
) -> str:
    numbers = [value for _time_ms, value in values] or [0.0]
    least, most = (0.0, 1.0) if limit is not None else (min(numbers), max(numbers))
    up = Scale(least, most, top + PANEL - 4, top + 4)
    parts = [
        line(LEFT, top + PANEL, WIDTH - RIGHT, top + PANEL),
        text(LEFT, top - 4, device, 'font-weight="600"'),
        text(LEFT - 6, top + 10, f"{most:.0f}", 'text-anchor="end"'),
        text(LEFT - 6, top + PANEL, f"{least:.0f}", 'text-anchor="end"'),
        curve(((days(findings.day(at)), up(value)) for at, value in thin(values)), "var(--wait)"),
    ]
    if limit is not None:
        dashed = 'stroke="var(--act)" stroke-dasharray="5 4"'
        parts.append(line(LEFT, up(limit), WIDTH - RIGHT, up(limit), dashed))
    return "".join(parts)


def _leak(findings: Findings, days: Scale, bottom: float) -> str:
    """The time in which the leak is open, shaded, and the moment at which it was raised."""
    opened = days(findings.day(findings.leak_opened_ms))
    parts = [
        _rect(opened, 0, WIDTH - RIGHT, bottom, "var(--open)"),
        line(opened, 0, opened, bottom, 'stroke="var(--bad)"'),
        text(opened - 4, 11, _("leak opens"), 'text-anchor="end"'),
    ]
    if findings.leak_event:
        raised = days(findings.day(findings.leak_event["time_ms"]))
        parts.append(line(raised, 0, raised, bottom, 'stroke="var(--bad)" stroke-dasharray="3 3"'))
        parts.append(text(raised + 4, 11, _("raised")))
    return "".join(parts)


def _axis(days: Scale, last: float, bottom: float) -> str:
    return "".join(
        line(days(at), 0, days(at), bottom)
        + text(days(at), bottom + 14, _("day {day:.0f}").format(day=at), 'text-anchor="middle"')
        for at in ticks(last, 20)
    )


def _column(start: float, end: float, sample: Sample, up: Scale) -> str:
    """The devices of one moment, stacked."""
    parts, below = [], 0
    for place, color in PLACES.items():
        count = sample.counts.get(place, 0)
        if count:
            parts.append(_rect(start, up(below + count), end, up(below), color))
        below += count
    return "".join(parts)


def _rect(left: float, top: float, right: float, bottom: float, color: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
        f'height="{max(0.0, bottom - top):.1f}" fill="{color}"/>'
    )
