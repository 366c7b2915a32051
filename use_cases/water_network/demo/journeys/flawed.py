"""A bad and a worse release are stopped at the first wave and taken back; the others never get them."""

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Rollout
from use_cases.water_network.demo.journeys.rolling import roll_out
from use_cases.water_network.demo.operating import Order
from use_cases.water_network.demo.stage import Stage


def bad(stage: Stage) -> None:
    """Its golden inputs fail on the device before it is ever used."""
    stage.say(_("Publishing release {release}, packed with wrong golden inputs").format(release=plan.BAD))
    stage.operator.publish(plan.BAD)
    _stopped(stage, roll_out(stage, Order(plan.BAD, "1,100%", _("more training"))), "failed")


def worse(stage: Stage) -> None:
    """It passes its golden inputs, and cries wolf in probation."""
    stage.say(_("Publishing release {release}, which sees leaks everywhere").format(release=plan.WORSE))
    stage.operator.publish(plan.WORSE)
    _stopped(stage, roll_out(stage, Order(plan.WORSE, "1,100%", _("mended"))), "rolled_back")


def _stopped(stage: Stage, went: Rollout, how: str) -> None:
    stage.require(
        _("release {release} is stopped at the first wave").format(release=went.release),
        holds=went.state == "failed" and len(went.failures) == 1 and not went.done,
    )
    for device, reason in went.failures.items():
        stage.until(
            _("{device} runs release {release} again").format(device=device, release=plan.BETTER),
            lambda device=device: stage.observer.running(device) == plan.BETTER,  # type: ignore[misc] # bound
        )
        stage.say(_("{device} {how}: {reason}").format(device=device, reason=reason, how=how))
