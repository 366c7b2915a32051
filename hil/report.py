"""The report of a run: one self-contained HTML page, a timeline for every scenario. Pure."""

from collections.abc import Sequence
from html import escape
from typing import Final

from fleet_protocol.texts import _
from hil.runner import Done, Run, Verdict

WIDTH: Final = 860
LANE: Final = 20
CURVE: Final = 70
LEFT: Final = 10

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882;
  --good: #2a7f4f; --bad: #b3261e; --wait: #3b6ea5; --act: #b26a00; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .2rem; }
p.promise { margin: 0 0 .6rem; font-style: italic; }
.passed { color: var(--good); } .failed { color: var(--bad); } .skipped { color: var(--act); }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; } th { font-weight: 600; }
td.n { text-align: right; }
svg { width: 100%; height: auto; background: var(--soft); border-radius: 6px; }
svg .grid { stroke: var(--line); stroke-width: .5; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: 6px; font-size: 12px; }
details summary { cursor: pointer; }
"""


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    counts = [f"{sum(run.verdict is verdict for run in runs)} {verdict.value}" for verdict in Verdict]
    body = "\n".join(
        [f"<h1>{_('Argan under faults')}</h1>", f"<p>{', '.join(counts)}</p>", _index(runs), *map(_run, runs)]
    )
    title = _("Argan: hardware in the loop")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )


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
        parts.append(_accounts(run))
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
        for t in _ticks(end)
    )
    box = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_("timeline")}">'
    return f"{box}{axis}{bars}{_curve(run, end, base)}</svg>"


def _bar(step: Done, place: int, end: float) -> str:
    x, width = _x(step.began_s, end), max(3.0, _x(step.ended_s, end) - _x(step.began_s, end))
    color = "var(--bad)" if step.problem else "var(--wait)" if step.is_wait else "var(--act)"
    y = place * LANE + 4
    beyond = x > WIDTH * 0.6
    at = f'x="{x - 4:.1f}" text-anchor="end"' if beyond else f'x="{x + width + 4:.1f}"'
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 7}" rx="2" fill="{color}"/>'
        f'<text {at} y="{y + 10}">{escape(step.text)}</text>'
    )


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


def _ticks(end: float) -> list[float]:
    step = next((each for each in (1, 2, 5, 10, 20, 30, 60, 120, 300) if end / each <= 10), 600)
    return [float(at) for at in range(0, int(end) + 1, step)]


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


def _accounts(run: Run) -> str:
    heads = (_("device"), _("served"), _("stored"), _("kills"), _("cut short"), _("lost"), _("doubled"))
    rows = "".join(
        f"<tr><td>{each.device}</td>"
        + "".join(
            f'<td class="n">{number}</td>'
            for number in (
                each.served, each.stored, each.kills, len(each.cut_short), len(each.lost), len(each.doubled),
            )
        )
        + "</tr>"
        for each in run.accounts
    )  # fmt: skip
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>"
