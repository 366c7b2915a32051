"""A mended release with a higher counter: published, it heals the repository, and everybody takes it."""

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.journeys.again import where_it_failed
from use_cases.water_network.demo.journeys.rolling import roll_out
from use_cases.water_network.demo.operating import Order
from use_cases.water_network.demo.stage import Stage


def accepted(stage: Stage) -> None:
    """The device that refused the release before takes the one above it."""
    stage.say(_("Publishing a mended model, release {release}").format(release=plan.MENDED))
    stage.operator.publish(plan.MENDED)
    went = roll_out(stage, Order(plan.MENDED, "50%,100%", _("mended, counted up")))
    stage.require(
        _("the device that took release {old} back runs release {new}").format(
            old=plan.WORSE, new=plan.MENDED
        ),
        holds=went.state == "done" and where_it_failed(stage) in went.done,
    )
