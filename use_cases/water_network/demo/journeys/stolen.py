"""Somebody with the server's disk offers a forged model, then an older repository: both are refused."""

from collections.abc import Callable
from typing import Final

from fleet_protocol.targets import Refusal
from fleet_protocol.texts import _
from hil.thief import Thief
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.findings import Refused
from use_cases.water_network.demo.journeys.again import where_it_failed
from use_cases.water_network.demo.stage import Stage, now_ms

CODE: Final = "update.refused"


def forged_and_replayed(stage: Stage) -> None:
    """A model under a key of the thief's own, then what was published before; each time a device looks."""
    device = where_it_failed(stage)
    thief = Thief(stage.operator.server, stage.folder / "loot")
    thief.remember()
    stage.say(_("A thief with the server's disk publishes a forged model"))
    thief.forge()
    stage.operator.assign(device, plan.BETTER, _("to see that it is refused"))
    stage.until(
        _("{device} refuses it as forged").format(device=device), _told(stage, device, Refusal.FORGED)
    )
    stage.say(_("The thief puts the older repository back"))
    thief.put_back()
    stage.operator.unassign(device)
    stage.until(
        _("{device} refuses it as replayed").format(device=device), _told(stage, device, Refusal.REPLAYED)
    )


def _told(stage: Stage, device: str, refusal: Refusal) -> Callable[[], bool]:
    """Whether the device says so under its health code, and why."""

    def holds() -> bool:
        for detail in stage.observer.raised(device, CODE):
            if f"{refusal}: " in detail:
                what, _colon, reason = detail.partition(f"{refusal}: ")
                stage.findings.refusals.append(Refused(now_ms(), device, what.strip(" :()"), refusal, reason))
                return True
        return False

    return holds
