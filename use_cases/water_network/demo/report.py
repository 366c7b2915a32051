"""The table at the end of a check: what was seen, in figures."""

from rich.console import Group
from rich.table import Table

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Findings


def tables(findings: Findings) -> Group:
    """What the check saw, and the account of every device's readings."""
    return Group(_summary(findings), _accounts(findings))


def _summary(findings: Findings) -> Table:
    table = Table(title=_("What was seen"), show_header=False, title_justify="left")
    for name, value in (*_totals(findings), *_leak(findings), *_costs(findings)):
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


def _accounts(findings: Findings) -> Table:
    table = Table(title=_("Every reading, from the meter to the row"), title_justify="left")
    heads = (_("DEVICE"), _("SERVED"), _("STORED"), _("KILLED"), _("CUT SHORT"), _("LOST"), _("DOUBLED"))
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right")
    for each in findings.accounts:
        wrong = (len(each.cut_short), len(each.lost), len(each.doubled))
        numbers = (each.served, each.stored, each.kills, *wrong)
        table.add_row(each.device, *map(str, numbers))
    return table
