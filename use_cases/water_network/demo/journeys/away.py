"""A gateway without a network is given new software of its own on a stick, leaves a bad build, and says so.

What came of each stick is carried back: its signed receipt is all that the server ever hears of it.
"""

from pathlib import Path
from typing import Any, Final

from fleet_protocol.texts import _
from use_cases.water_network.demo.agent_builds import BROKEN, Changes, wheels
from use_cases.water_network.demo.findings import Carried
from use_cases.water_network.demo.island import DEVICE, Island
from use_cases.water_network.demo.stage import Stage

GOOD: Final = (1, "0.1.1")
BAD: Final = (2, "0.1.2")
"""Builds of the agent: release and version."""

WITHIN_S: Final = 240.0
"""Seconds in which a slot is built, tried and kept or left; the machine is busy with a whole city."""


def updated_from_a_stick(stage: Stage) -> None:
    """The good build comes to stay; the bad one is left for it, without anybody's help."""
    island = Island(stage.operator, stage.folder)
    island.start()
    try:
        stage.until(_("{device} works without a network").format(device=DEVICE), island.has_read)
        _carry(stage, island, GOOD, "committed", None)
        _carry(stage, island, BAD, "rolled_back", BROKEN)
    finally:
        island.stop()


def _carry(stage: Stage, island: Island, build: tuple[int, str], end: str, changes: Changes | None) -> None:
    """Bring ``build`` to the gateway on a stick, see how it ends, and carry the receipt back."""
    release, version = build
    stage.say(_("Bringing the agent {version} to {device} on a stick").format(version=version, device=DEVICE))
    stick = _stick(stage, release, version, changes)
    island.apply(stick)
    stage.until(
        _("the agent {version} is {state}").format(version=version, state=end),
        lambda: island.standing(version)[0] == end,
        WITHIN_S,
    )
    receipt = stick.with_name(f"{version}.receipt")
    island.write_receipt(receipt)
    stage.operator.fleet("receipt", "import", str(receipt))
    known = _known(stage)
    stage.require(
        _("the server knows by courier that {device} runs release {release}").format(
            device=DEVICE, release=GOOD[0]
        ),
        holds=(known["reported_by"], known["reported_release"]) == ("courier", GOOD[0]),
    )
    detail = island.standing(version)[1]
    stage.findings.carried.append(Carried(DEVICE, version, end, detail or known["text"]))
    stage.say(
        _("Its receipt is here: {version} {state}. {detail}").format(
            version=version, state=end, detail=detail
        )
    )


def _stick(stage: Stage, release: int, version: str, changes: Changes | None) -> Path:
    folder = stage.folder / "builds"
    build, stick = folder / f"argan-{release}.tar", folder / f"stick-{release}.tar"
    made = wheels(folder, version, changes)
    stage.operator.pack_agent(made, release, build)
    stage.operator.publish_agent(build, version)
    stage.operator.assign_agent(DEVICE, release)
    stage.operator.fleet("bundle", "export", "--device", DEVICE, "--out", str(stick))
    return stick


def _known(stage: Stage) -> dict[str, Any]:
    """What the server knows of the gateway's agent."""
    items = [each for each in stage.observer.versions(DEVICE) if each["kind"] == "agent"]
    return items[0] if items else {"reported_by": "", "reported_release": 0, "text": ""}
