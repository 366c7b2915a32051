"""How every rollout of the story is started through the CLI, watched to its end and written down."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from fleet_protocol.texts import _
from hil.processes import Child
from use_cases.water_network.demo.findings import Rollout, Sample
from use_cases.water_network.demo.operating import Order
from use_cases.water_network.demo.stage import Stage, now_ms

ENDED: Final = frozenset({"done", "failed", "aborted"})
SETTLED: Final = frozenset({"done", "failed", "left", "withdrawn"})
PROBATION: Final = "probation"

WITHIN_S: Final = 180.0
"""Seconds in which a rollout must come to its end."""

Page = dict[str, Any]
Meanwhile = Callable[[Page], None]


def roll_out(stage: Stage, order: Order, meanwhile: Meanwhile | None = None) -> Rollout:
    """Start ``order``, see it to its end, and write down how it went.

    ``meanwhile`` is shown every page on the way. ``fleet rollout watch`` runs beside it, and must
    agree on how it ended.
    """
    identity = stage.operator.start_rollout(order)
    page = stage.observer.rollout(identity)
    started = page["rollout"]
    went = Rollout(
        id=identity,
        what=f"{order.kind} {order.name}",
        release=order.release,
        version=started["version"],
        group=started["group"],
        reason=order.reason,
        asked_by=started["asked_by"],
        approved_by=tuple(started["approved_by"]),
    )
    stage.say(
        _("Rollout of {what} release {release}: asked by {asker}, approved by {approvers}").format(
            what=went.what, release=went.release, asker=went.asked_by, approvers=", ".join(went.approved_by)
        )
    )
    stage.findings.rollouts.append(went)
    log = stage.folder / "logs" / f"rollout-{len(stage.findings.rollouts)}.log"
    watch = Child("fleet rollout watch", stage.operator.watching(identity), log)
    watch.start()
    try:
        _follow(stage, went, meanwhile)
        watch.wait(WITHIN_S)
    finally:
        watch.stop()
    stage.require(
        _("'fleet rollout watch' ends as the rollout does"),
        holds=watch.exit_code == (0 if went.state == "done" else 1),
    )
    stage.say(
        _("Rollout of {what} release {release}: {state} {detail}").format(
            what=went.what, release=went.release, state=went.state, detail=went.detail
        )
    )
    return went


def members(page: Page) -> list[dict[str, Any]]:
    """Every device of a rollout."""
    return [device for wave in page["waves"] for device in wave["devices"]]


def _follow(stage: Stage, went: Rollout, meanwhile: Meanwhile | None) -> None:
    def is_over() -> bool:
        page = stage.observer.rollout(went.id)
        write_down(went, page)
        if meanwhile is not None:
            meanwhile(page)
        return went.state in ENDED and all(one["state"] in SETTLED for one in members(page))

    stage.until(_("the rollout of release {release} ends").format(release=went.release), is_over, WITHIN_S)


def write_down(went: Rollout, page: Page) -> None:
    """Keep what ``page`` shows, and a sample where devices have moved."""
    devices = members(page)
    counts = dict(Counter(_place(device) for device in devices))
    if not went.samples or went.samples[-1].counts != counts:
        went.samples.append(Sample(now_ms(), counts))
    went.state, went.detail = page["rollout"]["state"], page["rollout"]["detail"]
    went.failures = {one["id"]: one["detail"] for one in devices if one["state"] == "failed"}
    went.done = tuple(one["id"] for one in devices if one["state"] == "done")
    went.untouched = tuple(one["id"] for one in devices if one["state"] == "withdrawn")


def _place(device: dict[str, Any]) -> str:
    """Where a device stands: its state in the rollout, with probation told apart."""
    if device["state"] == "assigned" and device["update"] == PROBATION:
        return PROBATION
    return str(device["state"])
