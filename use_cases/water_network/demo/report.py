"""The tables at the end of a check: what was seen, in figures."""

from rich.console import Group
from rich.table import Table

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Findings


def tables(findings: Findings) -> Group:
    """What the check saw, what was refused, and the account of every device's readings."""
    return Group(
        _summary(findings),
        _rollouts(findings),
        _refusals(findings),
        _sticks(findings),
        _accounts(findings),
    )


def facts(findings: Findings) -> list[tuple[str, str]]:
    """The headline figures, each with its name."""
    return [
        *_totals(findings),
        *_leak(findings),
        *_center(findings),
        *_shadow(findings),
        *_costs(findings),
    ]


def _summary(findings: Findings) -> Table:
    table = Table(title=_("What was seen"), show_header=False, title_justify="left")
    for name, value in facts(findings):
        table.add_row(name, value)
    return table


def _totals(findings: Findings) -> list[tuple[str, str]]:
    counts = findings.counts
    kills = ", ".join(f"{name} ×{len(times)}" for name, times in findings.kills_ms.items())
    return [
        (_("readings stored"), str(counts["readings"])),
        (_("inferences stored"), str(counts["inferences"])),
        (_("events stored"), str(counts["events"])),
        (_("records dropped by agents"), str(counts["lost_records"])),
        (_("messages refused"), str(counts["refused"])),
        (_("killed with SIGKILL"), kills),
    ]


def _leak(findings: Findings) -> list[tuple[str, str]]:
    found = findings.leak_event
    hours = (found["time_ms"] - findings.leak_opened_ms) / 1000 * plan.TIME_FACTOR / 3600
    early = [
        event
        for event in findings.events
        if event["name"] == "leak" and event["time_ms"] < findings.leak_opened_ms
    ]
    return [
        (_("leak found by"), found["device"]),
        (_("hours of plant time after it opened"), f"{hours:.1f}"),
        (_("leak alarms before it opened"), str(len(early))),
    ]


def _center(findings: Findings) -> list[tuple[str, str]]:
    during = [one for one in findings.escalations if one["received_ms"] >= findings.leak_opened_ms]
    right = sum(one["label"] == plan.LEAK_GUARD for one in during)
    return [
        (_("questions to the center"), str(len(findings.escalations))),
        (
            _("leak's zone named, of the questions since it opened"),
            _("{right} of {all}").format(right=right, all=len(during)),
        ),
    ]


def _shadow(findings: Findings) -> list[tuple[str, str]]:
    seen = findings.shadow
    if seen is None:
        return []
    text = _("{share:.0%} of {windows} windows on {device}")
    agreed = text.format(share=seen.agreement, windows=seen.windows, device=seen.device)
    return [(_("release {release} in shadow agreed on").format(release=seen.release), agreed)]


def _costs(findings: Findings) -> list[tuple[str, str]]:
    rows = [
        (_("inference, median µs, {runtime}").format(runtime=runtime), f"{spent:.0f}")
        for runtime, spent in sorted(findings.latency_us.items())
    ]
    if findings.latency is not None:
        latency = findings.latency
        rows.append(
            (_("sensor read to row, p50 / p99 ms"), f"{latency['p50_ms']:.0f} / {latency['p99_ms']:.0f}")
        )
    memory = sorted(findings.memory_mib.values())
    rows.append((_("PSS of an agent with its worker, MiB"), f"{memory[0]:.0f} to {memory[-1]:.0f}"))
    return rows


def _rollouts(findings: Findings) -> Table:
    heads = (_("WHAT"), _("RELEASE"), _("STATE"), _("DONE"), _("FAILED"), _("SPARED"), _("WHY"))
    table = _table(_("Rollouts"), heads)
    for went in findings.rollouts:
        counts = (len(went.done), len(went.failures), len(went.untouched))
        why = "; ".join(went.failures.values()) or went.reason
        table.add_row(went.what, f"{went.release} ({went.version})", went.state, *map(str, counts), why)
    return table


def _refusals(findings: Findings) -> Table:
    table = _table(_("Refused updates"), (_("DEVICE"), _("WHAT"), _("REFUSED AS"), _("REASON")))
    for one in findings.refusals:
        table.add_row(one.device, one.what, one.refusal, one.detail)
    return table


def _sticks(findings: Findings) -> Table:
    table = _table(
        _("The agent's own software, by stick"), (_("DEVICE"), _("VERSION"), _("STATE"), _("REASON"))
    )
    for one in findings.carried:
        table.add_row(one.device, one.version, one.state, one.detail)
    return table


def _accounts(findings: Findings) -> Table:
    heads = (_("DEVICE"), _("SERVED"), _("STORED"), _("KILLED"), _("CUT SHORT"), _("LOST"), _("DOUBLED"))
    table = _table(_("Every reading, from the meter to the row"), heads)
    for each in findings.accounts:
        wrong = (len(each.cut_short), len(each.lost), len(each.doubled))
        numbers = (each.served, each.stored, each.kills, *wrong)
        table.add_row(each.device, *map(str, numbers))
    return table


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head)
    return table
