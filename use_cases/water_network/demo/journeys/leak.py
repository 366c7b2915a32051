"""The models answer; a leak opens, and the gateway that guards it finds it; at the end it is killed."""

from typing import Final

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import DAY_S
from use_cases.water_network.demo.journeys.beginning import reporting
from use_cases.water_network.demo.stage import WITHIN_S, Stage, now_ms

LEAK_DAYS: Final = 4.0
"""Days in which the open leak has to be found."""


def history(stage: Stage) -> None:
    """Wait until every model has answered."""
    stage.say(_("Gathering history until every model has answered"))
    stage.until(
        _("every model answers"),
        lambda: all(view.label is not None for view in stage.observer.look().devices),
        plan.WARM_UP_DAYS * DAY_S + WITHIN_S,
    )


def found(stage: Stage) -> None:
    """Wait until the leak is raised by its gateway, which is killed then and comes again."""
    stage.say(_("Waiting for the leak to open and to be found"))
    opens_in_s = max(0.0, (stage.findings.leak_opened_ms - now_ms()) / 1000)
    stage.until(
        _("the leak is raised by its gateway"),
        lambda: _is_found(stage),
        opens_in_s + LEAK_DAYS * DAY_S + WITHIN_S,
    )
    stage.say(_("{device} has raised the leak").format(device=plan.LEAK_GUARD))


def guard_killed(stage: Stage) -> None:
    """Kill the gateway that watches the leak: it comes again."""
    stage.kill(plan.LEAK_GUARD)
    stage.until(_("the killed agent reports again"), reporting(stage))


def _is_found(stage: Stage) -> bool:
    findings = stage.findings
    findings.events = stage.observer.events()
    for event in findings.events:
        guards = event["device"] == plan.LEAK_GUARD and event["name"] == "leak"
        if guards and event["time_ms"] >= findings.leak_opened_ms:
            findings.leak_event = event
            return True
    return False
