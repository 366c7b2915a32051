"""A better model is published and rolled out in waves under kills; then the policy made for it."""

from typing import Any

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.journeys.rolling import PROBATION, members, roll_out
from use_cases.water_network.demo.operating import Order
from use_cases.water_network.demo.stage import Stage


def model(stage: Stage) -> None:
    """Every gateway of the group must run the better model at the end, whoever was killed."""
    stage.say(_("Publishing a better model, release {release}").format(release=plan.BETTER))
    stage.operator.publish(plan.BETTER)
    order = Order(plan.BETTER, "1,50%,100%", _("knows leaks elsewhere"))
    went = roll_out(stage, order, _Kills(stage))
    stage.require(
        _("every gateway of the group runs release {release}").format(release=plan.BETTER),
        holds=went.state == "done" and not went.failures,
    )


def policy(stage: Stage) -> None:
    """The threshold of the old policy was learned for the old model; the new one comes with its own."""
    stage.say(_("Publishing the policy that was calibrated for it"))
    stage.operator.publish_policy()
    order = Order(plan.BETTER_POLICY, "50%,100%", _("calibrated"), "policy", plan.POLICY)
    went = roll_out(stage, order)
    stage.require(_("every gateway has the policy"), holds=went.state == "done")


class _Kills:
    """Kills the rollouts process during the first wave, and an agent on probation in a later one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._has_killed_part = False
        self._has_killed_agent = False

    def __call__(self, page: dict[str, Any]) -> None:
        first, *later = page["waves"]
        if not self._has_killed_part and first["state"] == "open":
            self._has_killed_part = True
            self._stage.kill("rollouts")
        on_trial = [one["id"] for one in members({"waves": later}) if one["update"] == PROBATION]
        if not self._has_killed_agent and on_trial:
            self._has_killed_agent = True
            self._stage.kill(on_trial[0])
