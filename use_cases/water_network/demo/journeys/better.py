"""The better model is rolled out in waves under kills; then the policy made for it is."""

from typing import Any, Final

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.journeys.rolling import roll_out
from use_cases.water_network.demo.operating import Order
from use_cases.water_network.demo.stage import Stage

VICTIMS: Final = (("rollouts",), ("device", "gw-129"))
"""Who is killed in the first wave, and in the second."""


def model(stage: Stage) -> None:
    """Every gateway of the group must run the better model at the end, whoever was killed."""
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
    """Kills the rollouts process during the first wave; in the next who serves updates, and an agent.

    The agent is none of the group: at this speed a restart takes hours of plant time, and a model
    that has lost its week of history cannot prove itself.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._done = 0

    def __call__(self, page: dict[str, Any]) -> None:
        opened = sum(wave["state"] != "waiting" for wave in page["waves"])
        if opened > self._done and self._done < len(VICTIMS):
            self._done += 1
            for victim in VICTIMS[self._done - 1]:
                self._stage.kill(victim)
