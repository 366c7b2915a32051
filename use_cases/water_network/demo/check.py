"""The demonstration without a terminal: every journey observed end to end, under kills, and accounted for.

Here is only their order. At the end the meters refuse, everything still on its way must arrive, and
each device's readings are held against what its meter served.
"""

from fleet_protocol.texts import _
from hil.processes import proportional_memory_mib
from use_cases.water_network.demo.city import City
from use_cases.water_network.demo.findings import Findings
from use_cases.water_network.demo.journeys import (
    account,
    again,
    away,
    beginning,
    beside,
    better,
    escalation,
    flawed,
    leak,
    mended,
    stolen,
)
from use_cases.water_network.demo.kills import Killer
from use_cases.water_network.demo.observe import Observer
from use_cases.water_network.demo.stage import Say, Stage


def run(city: City, observer: Observer, say: Say) -> Findings:
    """Observe every journey of a city that has just started.

    Raises:
        CheckFailedError: one was not observed in time.
    """
    findings = Findings(city.started_ms)
    killer = Killer(city, findings, say)
    stage = Stage(city.folder, observer, city.operator, findings, say, city.mend, killer)
    beginning.everybody_reports(stage)
    beginning.kills(stage)
    leak.history(stage)
    findings.memory_mib = _memory(city)
    leak.found(stage)
    escalation.answered(stage)
    beside.in_shadow(stage)
    better.model(stage)
    better.policy(stage)
    flawed.bad(stage)
    flawed.worse(stage)
    again.refused(stage)
    stolen.forged_and_replayed(stage)
    mended.accepted(stage)
    away.updated_from_a_stick(stage)
    leak.guard_killed(stage)
    findings.latency = observer.latency()
    account.inference_times(stage)
    say(_("Having the meters refuse from now on"))
    account.reconcile(stage, city.close_meters())
    return findings


def failures(findings: Findings) -> list[str]:
    """What was seen and must not be; nothing when all is well."""
    wrong = [
        _("{device}: {lost} readings lost, {doubled} doubled, uneven: {uneven}").format(
            device=each.device,
            lost=len(each.lost),
            doubled=len(each.doubled),
            uneven=", ".join(each.uneven) or "-",
        )
        for each in findings.accounts
        if not each.balanced
    ]
    if findings.counts["lost_records"]:
        wrong.append(
            _("{count} records were dropped by agents").format(count=findings.counts["lost_records"])
        )
    if findings.counts["refused"]:
        wrong.append(_("{count} messages were refused").format(count=findings.counts["refused"]))
    return wrong


def _memory(city: City) -> dict[str, float]:
    return {
        device: proportional_memory_mib(agent.pid)
        for device, agent in city.agents.items()
        if agent.pid is not None
    }
