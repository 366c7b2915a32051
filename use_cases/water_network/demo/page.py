"""The page at the end of a check: what was seen, with plots, in one file that needs nothing else. Pure."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Final

from fleet_protocol.targets import WORDS, Refusal
from fleet_protocol.texts import _, mark
from hil.page import accounts, document, table
from use_cases.water_network.demo import plan, plots
from use_cases.water_network.demo.findings import Findings, Rollout
from use_cases.water_network.demo.report import facts

SHOWN: Final = (plan.LEAK_GUARD, "gw-153", "gw-259")
"""The leak's gateway, one beside it, and one far away."""

ALARM: Final = 0.5
"""The score from which the policy counts a window as an alarm."""

ANSWERS: Final = 30
"""Escalations in the table."""

_PLACES: Final = {
    "done": mark("runs it"),
    "probation": mark("on probation"),
    "assigned": mark("under way"),
    "waiting": mark("waits for its wave"),
    "withdrawn": mark("spared"),
    "failed": mark("has not kept it"),
}
"""What the colors of a rollout's curve mean."""

_STYLE: Final = """
:root { --trial: light-dark(#7aa7d9, #a9cdf2); --idle: #8884; --open: #d0402022; --spared: #8888; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .6rem;
  margin: 1rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--soft); border-radius: 6px; padding: .5rem .8rem; }
.tiles b { display: block; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.verdict { font-weight: 600; } h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
.key span { display: inline-block; margin-right: 1rem; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .3em; }
"""


def render(findings: Findings, wrong: Sequence[str]) -> str:
    """The whole page; ``wrong`` is what was seen and must not be."""
    body = [
        f"<h1>{_('The water network of a city, watched by Argan')}</h1>",
        _verdict(wrong),
        _tiles(findings),
        *_leak(findings),
        *_escalations(findings),
        *_rollouts(findings),
        *_refusals(findings),
        *_latency(findings),
        *_account(findings),
    ]
    return document(_("Argan: the demonstration"), "\n".join(body), _STYLE)


def _verdict(wrong: Sequence[str]) -> str:
    if not wrong:
        text = _("Everything was seen that had to be, and no reading was lost or doubled.")
        return f'<p class="verdict passed">✓ {escape(text)}</p>'
    lines = "".join(f"<li>{escape(line)}</li>" for line in wrong)
    return f'<ul class="verdict failed">{lines}</ul>'


def _tiles(findings: Findings) -> str:
    tiles = "".join(f"<li>{escape(name)}<b>{escape(value)}</b></li>" for name, value in facts(findings))
    return f'<ul class="tiles">{tiles}</ul>'


def _leak(findings: Findings) -> list[str]:
    pressures = {device: findings.pressures.get(device, []) for device in SHOWN}
    scores = {device: findings.scores.get(device, []) for device in SHOWN}
    story = _("A leak of {size:.0f} L/s opens at junction {node}, in the district of {device}.").format(
        size=plan.LEAK_SIZE_LS, node=plan.LEAK_NODE, device=plan.LEAK_GUARD
    )
    return [
        _head(_("The leak"), story),
        f"<h3>{_('Pressure, m')}</h3>",
        plots.panels(findings, pressures, _("pressure")),
        f"<h3>{_('Score of the model on the gateway; the dashed line is the alarm')}</h3>",
        plots.panels(findings, scores, _("score"), ALARM),
    ]


def _escalations(findings: Findings) -> list[str]:
    asked = findings.escalations
    opened = findings.leak_opened_ms
    during = [one for one in asked if one["received_ms"] >= opened]
    named = Counter(one["label"] or one["state"] for one in during).most_common()
    story = _(
        "{count} questions, {during} of them with the leak open. Then the center named: {named}."
    ).format(
        count=len(asked),
        during=len(during),
        named=", ".join(f"{label} ×{count}" for label, count in named) or "-",
    )
    rows = [
        (
            f"{findings.day(one['received_ms']):.2f}", one["device"], one["state"], one["label"],
            f"{one['confidence']:.2f}", one["answered_by"], one["answered_ms"] - one["received_ms"],
        )
        for one in sorted(during, key=lambda one: int(one["received_ms"]))[:ANSWERS]
    ]  # fmt: skip
    heads = (_("day"), _("device"), _("state"), _("zone"), _("confidence"), _("answered by"), _("took, ms"))
    title = _("What gateways were not sure of")
    return [_head(title, story), _folded(_("the first {count}").format(count=len(rows)), table(heads, rows))]


def _rollouts(findings: Findings) -> list[str]:
    key = "".join(
        f'<span><i style="background:{plots.PLACES[place]}"></i>{escape(_(words))}</span>'
        for place, words in _PLACES.items()
    )
    story = _("Devices by state since each rollout began. A failure in the first wave ends a rollout.")
    parts = [_head(_("Rollouts"), story), f'<p class="key">{key}</p>']
    for went in findings.rollouts:
        parts += [f"<h3>{escape(_rollout(went))}</h3>", plots.rollout(went), _failures(went)]
    return parts


def _rollout(went: Rollout) -> str:
    return _(
        "{what} release {release} ({version}) for group {group}: {reason} – asked by {asker}, "
        "approved by {approvers} – {state} {detail}"
    ).format(
        what=went.what, release=went.release, version=went.version, group=went.group, reason=went.reason,
        asker=went.asked_by, approvers=", ".join(went.approved_by), state=went.state, detail=went.detail,
    )  # fmt: skip


def _failures(went: Rollout) -> str:
    lines = "".join(f"<li>{escape(f'{device}: {why}')}</li>" for device, why in went.failures.items())
    return f'<ul class="failed">{lines}</ul>' if lines else ""


def _refusals(findings: Findings) -> list[str]:
    rows = [
        (
            f"{findings.day(one.time_ms):.1f}", one.device, one.what, one.refusal, one.detail,
            WORDS[Refusal(one.refusal)].next_step,
        )
        for one in findings.refusals
    ]  # fmt: skip
    heads = (_("day"), _("device"), _("what"), _("refused as"), _("reason"), _("next step"))
    story = _("What a device must not accept, it refuses by itself, and says why.")
    return [_head(_("Refused updates"), story), table(heads, rows)]


def _latency(findings: Findings) -> list[str]:
    count = len(findings.latencies_ms)
    story = _("From reading the sensor to the row in the database, {count} readings; kills included.").format(
        count=count
    )
    return [_head(_("Latency"), story), plots.latencies(findings.latencies_ms)]


def _account(findings: Findings) -> list[str]:
    story = _("Every reading that a meter served, against the rows. Cut short: killed before it was written.")
    return [_head(_("The account"), story), accounts(findings.accounts)]


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _head(title: str, story: str) -> str:
    return f'<h2>{escape(title)}</h2><p class="promise">{escape(story)}</p>'
