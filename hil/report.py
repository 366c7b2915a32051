"""The report of a run: one self-contained HTML page, a timeline for every scenario. Pure."""

from collections.abc import Sequence
from html import escape
from typing import Final

from fleet_protocol.texts import _
from hil.page import LEFT, accounts, document, svg, ticks
from hil.runner import Done, Run, Verdict

WIDTH: Final = 860
LANE: Final = 20
CURVE: Final = 70


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    counts = [f"{sum(run.verdict is verdict for run in runs)} {verdict.value}" for verdict in Verdict]
    body = "\n".join(
        [f"<h1>{_('Argan under faults')}</h1>", f"<p>{', '.join(counts)}</p>", _index(runs), *map(_run, runs)]
    )
    return document(_("Argan: hardware in the loop"), body)


def _index(runs: Sequence[Run]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{run.scenario.name}">{escape(run.scenario.title)}</a></td><td>{run.rig}</td>'
        f'<td class="{run.verdict.value}">{_mark(run)}</td><td class="n">{run.seconds:.1f} s</td></tr>'
        for run in runs
    )
    return f"<table><tr><th>{_('Scenario')}</th><th>{_('Rig')}</th><th></th><th></th></tr>{rows}</table>"


def _mark(run: Run) -> str:
    return {Verdict.PASSED: "✓ ", Verdict.FAILED: "✗ ", Verdict.SKIPPED: "– "}[
        run.verdict
    ] + run.verdict.value


def _run(run: Run) -> str:
    scenario = run.scenario
    verdict = f'<span class="{run.verdict.value}">{_mark(run)}</span>'
    parts = [
        f'<h2 id="{scenario.name}">{verdict} {escape(scenario.title)}</h2>',
        f'<p class="promise">{escape(scenario.promise)}</p>',
    ]
    if run.message:
        parts.append(f'<p class="{run.verdict.value}">{escape(run.message)}</p>')
    if run.steps:
        parts.append(_timeline(run))
        parts.append(_steps(run.steps))
    if run.accounts:
        parts.append(accounts(run.accounts))
    parts += [
        f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
        for name, text in run.logs.items()
    ]
    return "\n".join(parts)


def _timeline(run: Run) -> str:
    """Steps as bars, one lane each; below, the readings stored a second and how many devices are online."""
    end = max(run.seconds, 1.0)
    height = len(run.steps) * LANE + CURVE + 40
    bars = "".join(_bar(step, place, end) for place, step in enumerate(run.steps))
    base = len(run.steps) * LANE + CURVE + 14
    axis = "".join(
        f'<line x1="{_x(t, end):.1f}" x2="{_x(t, end):.1f}" y1="0" y2="{base}" class="grid"/>'
        f'<text x="{_x(t, end):.1f}" y="{base + 14}">{t:.0f} s</text>'
        for t in ticks(end)
    )
    return svg(WIDTH, height, _("timeline"), f"{axis}{bars}{_curve(run, end, base)}")


def _bar(step: Done, place: int, end: float) -> str:
    x, width = _x(step.began_s, end), max(3.0, _x(step.ended_s, end) - _x(step.began_s, end))
    color = "var(--bad)" if step.problem else "var(--wait)" if step.is_wait else "var(--act)"
    y = place * LANE + 4
    at = _label_place(x, width)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 7}" rx="2" fill="{color}"/>'
        f'<text {at} y="{y + 10}">{escape(step.text)}</text>'
    )


def _label_place(x: float, width: float) -> str:
    """Beside its bar where there is room, behind it first; else inside."""
    if x + width < WIDTH * 0.55:
        return f'x="{x + width + 4:.1f}"'
    if x > WIDTH * 0.45:
        return f'x="{x - 4:.1f}" text-anchor="end"'
    return f'x="{x + 6:.1f}" class="inside"'


def _curve(run: Run, end: float, base: float) -> str:
    """Readings stored so far, as one line."""
    if not run.looks:
        return ""
    most = max(look.readings for look in run.looks) or 1
    points = " ".join(
        f"{_x(look.at_s, end):.1f},{base - look.readings / most * CURVE:.1f}" for look in run.looks
    )
    label = _("{count} values stored").format(count=most)
    return (
        f'<polyline points="{points}" fill="none" stroke="var(--good)" stroke-width="1.5"/>'
        f'<text x="{WIDTH - 6}" y="{base - CURVE - 2:.0f}" text-anchor="end">{label}</text>'
    )


def _x(seconds: float, end: float) -> float:
    return LEFT + seconds / end * (WIDTH - 2 * LEFT)


def _steps(steps: Sequence[Done]) -> str:
    rows = "".join(
        f'<tr><td class="n">{step.began_s:.1f} s</td><td class="n">{step.ended_s - step.began_s:.1f} s</td>'
        f'<td>{escape(step.text)}</td><td class="failed">{escape(step.problem)}</td></tr>'
        for step in steps
    )
    return (
        f"<details><summary>{_('every step')}</summary>"
        f"<table><tr><th>{_('at')}</th><th>{_('took')}</th><th>{_('step')}</th><th></th></tr>{rows}</table></details>"
    )
