"""An uncertain window goes to the center, and the central model's answer names a zone."""

from typing import Any, Final

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.stage import Stage

NO_ZONE: Final = "none"


def answered(stage: Stage) -> None:
    """Wait until the center has named the leak's zone, and an answer of its took a gateway's place."""
    stage.say(_("Waiting for the central model to name the leak's zone"))
    stage.until(
        _("the central model names the zone {zone}").format(zone=plan.LEAK_GUARD), lambda: _named(stage)
    )
    stage.until(_("an answer of the center's supersedes a gateway's own"), lambda: _superseded(stage))
    first = stage.findings.superseded
    stage.say(_("The center answered {device}: {label}").format(device=first["device"], label=first["label"]))


def _named(stage: Stage) -> bool:
    findings = stage.findings
    findings.escalations = stage.observer.escalations()
    return any(
        names_the_leak(one) and one["received_ms"] >= findings.leak_opened_ms for one in findings.escalations
    )


def names_the_leak(one: dict[str, Any]) -> bool:
    """Whether an answer of the center's is the district in which the leak is."""
    return bool(one["label"] == plan.LEAK_GUARD)


def _superseded(stage: Stage) -> bool:
    """Look for the answer among the inferences of whoever asked: first those that name the leak."""
    asked = {one["id"]: one["device"] for one in stage.findings.escalations if names_the_leak(one)}
    for device in set(asked.values()):
        for one in stage.observer.inferences(device, limit=1000):
            if one["supersedes"] and one["request"] in asked:
                stage.findings.superseded = {**one, "device": device}
                return True
    return False
