"""What was rolled back on a device is offered to it again: refused, until its release rises."""

from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Refused
from use_cases.water_network.demo.stage import Stage, now_ms


def refused(stage: Stage) -> None:
    """Assign the worse release to the device that has taken it back."""
    device = where_it_failed(stage)
    stage.say(_("Assigning release {release} to {device} again").format(release=plan.WORSE, device=device))
    stage.until(_("nothing is refused before"), lambda: not stage.observer.update(device).get("refusal"))
    stage.operator.assign(device, plan.WORSE, _("to see that it is refused"))
    stage.until(_("{device} refuses it").format(device=device), lambda: _is_refused(stage, device))


def where_it_failed(stage: Stage) -> str:
    """The device that has rolled the worse release back."""
    (went,) = [one for one in stage.findings.rollouts if one.release == plan.WORSE]
    return next(iter(went.failures))


def _is_refused(stage: Stage, device: str) -> bool:
    update = stage.observer.update(device)
    if update.get("refusal") != Refusal.FAILED_HERE or stage.observer.running(device) != plan.BETTER:
        return False
    what = f"{plan.MODEL} {update['release']}"
    stage.findings.refusals.append(
        Refused(
            now_ms(),
            device,
            what,
            update["refusal"],
            _("rolled back: {reason}").format(reason=update["detail"]),
        )
    )
    return True
