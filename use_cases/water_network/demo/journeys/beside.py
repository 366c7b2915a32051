"""A better model runs in shadow of the one that acts before it is rolled out: both answer, one counts."""

from typing import Any, Final

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Shadow
from use_cases.water_network.demo.stage import Stage

DEVICE: Final = "gw-259"
WINDOWS: Final = 24
"""Windows that both have to answer: a quarter of a day."""


def in_shadow(stage: Stage) -> None:
    """Publish the better model and let one gateway run it beside its own."""
    stage.say(_("Publishing a better model, release {release}").format(release=plan.BETTER))
    stage.operator.publish(plan.BETTER)
    stage.say(_("{device} runs it in shadow").format(device=DEVICE))
    stage.operator.assign(DEVICE, plan.BETTER, _("beside the one that acts, first"), "--shadow")
    stage.until(
        _("both have answered {count} windows").format(count=WINDOWS),
        lambda: _compared(stage).get("windows", 0) >= WINDOWS,
    )
    compared = _compared(stage)
    stage.require(
        _("release 1 still acts on {device}").format(device=DEVICE), holds=stage.observer.running(DEVICE) == 1
    )
    stage.findings.shadow = Shadow(
        DEVICE,
        compared["release"],
        compared["windows"],
        compared["agreement"],
        compared["latency_us"],
        compared["acting_latency_us"],
    )
    stage.say(
        _("Labels agree on {share:.0%} of {windows} windows; nobody was alarmed by the shadow").format(
            share=compared["agreement"], windows=compared["windows"]
        )
    )


def _compared(stage: Stage) -> dict[str, Any]:
    """How the shadow compares, as the gateway reports it; empty before it does."""
    found = [each for each in stage.observer.shadows(DEVICE) if each["release"] == plan.BETTER]
    return found[0] if found else {}
