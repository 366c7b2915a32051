"""What rollouts and assignments would change, as proposals ask for it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlmodel import Session, col, select

from fleet_protocol import delivery
from fleet_protocol.delivery import ANY, Delivery
from fleet_protocol.targets import Kind, Mode
from fleet_protocol.texts import _
from fleet_server.access.roles import Permission
from fleet_server.approvals.decision import NO_SITE
from fleet_server.approvals.plans import Action, Arguments, Difference, Plan, Radius, Touched, read
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.models import (
    Artifact,
    Assignment,
    Device,
    DeviceGroup,
    RolloutMember,
    Twin,
    TwinHalf,
)
from fleet_server.database.parts import in_parts
from fleet_server.errors import BadChange
from fleet_server.updates import assigning, assignments, rollouts
from fleet_server.updates.rollout_decision import RolloutState
from fleet_server.updates.rollout_rules import Rules
from fleet_server.updates.rollouts import Order, Outlook

START: Final = "rollout.start"
RESUME: Final = "rollout.resume"
ASSIGN: Final = "device.assign"
WITHDRAW: Final = "device.withdraw"


class StartArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Move ``group`` to a release, by rules."""

    group: str
    kind: Kind
    name: str
    release: int
    rules: Rules
    reason: str
    mode: Mode = Mode.ACT


class RolloutArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rollout."""

    rollout: str


class DeviceArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which artifact of which device, on which terms; ``release`` is None where it is withdrawn."""

    device: str
    kind: Kind
    name: str
    release: int | None = None
    mode: Mode = Mode.ACT
    delivery: Delivery = ANY


def plan_start(session: Session, tenant: str, identity: str, arguments: Arguments) -> Plan:
    """A rollout as it would begin: its devices, their waves, and who is left out.

    Raises:
        RolloutError: as :func:`.rollouts.foresee`.
    """
    asked = read(arguments, StartArguments)
    order = Order(asked.group, asked.kind, asked.name, asked.release, asked.rules, asked.reason, asked.mode)
    outlook = rollouts.foresee(session, tenant, identity, order)
    what = (asked.kind, asked.name)
    reached = [device for device in outlook.devices if device.id not in outlook.unfit]
    devices = touched(session, tenant, reached, what, asked.mode)
    group = session.get_one(DeviceGroup, (tenant, asked.group))

    def carry() -> list[Change]:
        rollouts.start(session, tenant, identity, order, outlook)
        return [
            Change(START, identity, None, RolloutState.RUNNING, {"reason": asked.reason, "mode": asked.mode})
        ]

    diff = _of_start(order, outlook, devices, group.filter)
    diff += _of_rollout_terms(session, tenant, order, [device.id for device in reached])
    return Plan(diff, Radius.of(devices), carry)


def plan_resume(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
    """A paused rollout as it would go on, with all its devices: one that has failed meanwhile counts.

    Raises:
        RolloutError: there is none, or it is not paused.
    """
    rollout = read(arguments, RolloutArguments).rollout
    row = rollouts.require_paused(session, tenant, rollout)
    artifact = session.get_one(Artifact, (tenant, row.artifact))
    members = session.exec(
        select(Device)
        .join(
            RolloutMember,
            (col(RolloutMember.tenant) == Device.tenant) & (col(RolloutMember.device) == Device.id),
        )
        .where(RolloutMember.tenant == tenant, RolloutMember.rollout == rollout)
        .where(RolloutMember.wave != rollouts.LEFT_OUT)
        .order_by(col(Device.id))
    ).all()
    devices = touched(session, tenant, members, (Kind(artifact.kind), artifact.name), Mode(row.mode))
    goal = _place(artifact.kind, artifact.name, Mode(row.mode))
    diff = (
        Difference("rollout", None, rollout),
        Difference("state", RolloutState.PAUSED, RolloutState.RUNNING),
        Difference(goal, _releases(devices), {_release(artifact.release): len(devices)}),
        Difference("sha256", None, artifact.sha256),
    )

    def carry() -> list[Change]:
        rollouts.resume(session, tenant, rollout)
        return [Change(RESUME, rollout, RolloutState.PAUSED, RolloutState.RUNNING)]

    return Plan(diff, Radius.of(devices), carry)


def plan_assign(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
    """One release for one device.

    Raises:
        NotFound: there is no such device.
        NoArtifact: it was not published.
        BadChange: the device is to have it already.
    """
    asked = read(arguments, DeviceArguments)
    if asked.release is None:
        raise BadChange(_("say which release {device} shall have").format(device=asked.device[:80]))
    artifact = assigning.require_artifact(session, tenant, (asked.kind, asked.name), asked.release)
    return _plan_one(session, tenant, asked, artifact)


def plan_withdraw(session: Session, tenant: str, _identity: str, arguments: Arguments) -> Plan:
    """Nothing of a name for one device any more; what it runs goes on running.

    Raises:
        NotFound: there is no such device.
        BadChange: the device is to have nothing of it anyway.
    """
    return _plan_one(session, tenant, read(arguments, DeviceArguments), None)


ACTIONS: Final = (
    Action(START, Permission.CHANGE_PROPOSE, plan_start),
    Action(RESUME, Permission.CHANGE_PROPOSE, plan_resume),
    Action(ASSIGN, Permission.CHANGE_PROPOSE, plan_assign),
    Action(WITHDRAW, Permission.CHANGE_PROPOSE, plan_withdraw),
)


def touched(
    session: Session, tenant: str, devices: Sequence[Device], what: tuple[Kind, str], mode: Mode = Mode.ACT
) -> tuple[Touched, ...]:
    """``devices`` with the release of the artifact ``what`` that each is to have, and that it runs so."""
    has: dict[str, int] = {}
    runs: dict[str, int] = {}
    for part in in_parts([device.id for device in devices]):
        has |= _assigned(session, tenant, part, what, mode)
        runs |= _running(session, tenant, part, what, mode)
    return tuple(
        Touched(device.id, device.site or NO_SITE, has.get(device.id), runs.get(device.id))
        for device in devices
    )


def _assigned(
    session: Session, tenant: str, devices: Sequence[str], what: tuple[Kind, str], mode: Mode
) -> dict[str, int]:
    kind, name = what
    return dict(
        session.exec(
            select(Assignment.device, Artifact.release)
            .where(Artifact.tenant == Assignment.tenant, Artifact.sha256 == Assignment.artifact)
            .where(Assignment.tenant == tenant, Assignment.kind == kind, Assignment.name == name)
            .where(Assignment.mode == mode, col(Assignment.device).in_(devices))
        ).all()
    )


def _running(
    session: Session, tenant: str, devices: Sequence[str], what: tuple[Kind, str], mode: Mode
) -> dict[str, int]:
    rows = session.exec(
        select(Twin.device, Twin.document)
        .where(Twin.tenant == tenant, Twin.half == TwinHalf.REPORTED)
        .where(col(Twin.device).in_(devices))
    )
    reports = ((device, rollouts.report_on(document, *what, mode)) for device, document in rows)
    return {device: report.installed for device, report in reports if report and report.installed}


def _of_start(
    order: Order, outlook: Outlook, devices: Sequence[Touched], group_filter: str
) -> tuple[Difference, ...]:
    artifact = outlook.artifact
    after = {_release(artifact.release): len(devices)}
    waves = [list(wave) for wave in outlook.waves]
    return (
        Difference(_place(order.kind, order.name, order.mode), _releases(devices), after),
        Difference("version", None, artifact.version),
        Difference("sha256", None, artifact.sha256),
        Difference("group", None, order.group),
        Difference("filter", None, group_filter),
        Difference("waves", None, waves),
        Difference("max_failures", None, order.rules.max_failures),
        Difference("soak_s", None, order.rules.soak_s),
        Difference("left_out", None, sorted(outlook.unfit)),
    )


def _plan_one(session: Session, tenant: str, asked: DeviceArguments, artifact: Artifact | None) -> Plan:
    what = (asked.kind, asked.name)
    device = assigning.require_device(session, tenant, asked.device)
    (one,) = touched(session, tenant, [device], what, asked.mode)
    release = artifact.release if artifact else None
    before = _terms(session, tenant, device.id, what, asked.mode)
    if one.has == release and before == asked.delivery:
        raise BadChange(
            _("{device} is to have release {release} of {name} already").format(
                device=device.id, release=release or _("none"), name=asked.name
            )
        )
    if artifact and asked.mode is Mode.SHADOW:
        _require_sense(session, tenant, asked, artifact)
    diff = [Difference(_place(asked.kind, asked.name, asked.mode), one.has, release)]
    if artifact:
        diff.append(Difference("sha256", None, artifact.sha256))
        diff += _of_terms(before, asked.delivery)
    name = ASSIGN if artifact else WITHDRAW

    def carry() -> list[Change]:
        wish = artifact.sha256 if artifact else None
        assignments.assign(session, tenant, what, {device.id: wish}, wall_ms(), asked.mode, asked.delivery)
        detail: dict[str, Any] = {"kind": asked.kind, "name": asked.name, "mode": asked.mode}
        said = delivery.custom_of(asked.delivery)
        return [Change(name, device.id, one.has, release, detail | {"release": release, **said})]

    return Plan(tuple(diff), Radius.of((one,)), carry)


def _of_terms(before: Delivery, after: Delivery) -> list[Difference]:
    """What changes about how it is fetched."""
    changed = before != after
    return [Difference("delivery", delivery.encode(before), delivery.encode(after))] if changed else []


def _of_rollout_terms(
    session: Session, tenant: str, order: Order, devices: Sequence[str]
) -> tuple[Difference, ...]:
    """What a rollout changes about how it is fetched: its terms take the place of each device's own."""
    after = delivery.encode(order.rules.delivery)
    before: Counter[str] = Counter()
    for part in in_parts(devices):
        query = (
            select(Assignment.delivery)
            .where(Assignment.tenant == tenant, Assignment.kind == order.kind, Assignment.name == order.name)
            .where(Assignment.mode == order.mode, col(Assignment.device).in_(part))
        )
        before.update(text for text in session.exec(query) if text)
    changed = after or before
    return (Difference("delivery", dict(sorted(before.items())) or None, after),) if changed else ()


def _terms(session: Session, tenant: str, device: str, what: tuple[Kind, str], mode: Mode) -> Delivery:
    """On which terms the device fetches the artifact ``what`` until now."""
    row = session.get(Assignment, (tenant, device, *what, mode))
    return delivery.decode(row.delivery) if row else ANY


def _require_sense(session: Session, tenant: str, asked: DeviceArguments, artifact: Artifact) -> None:
    """See to it that something can be learned from ``artifact`` in shadow."""
    if asked.kind is not Kind.MODEL:
        raise BadChange(
            _("only a model can run in shadow; assign {kind} {name} without it").format(
                kind=asked.kind, name=asked.name
            )
        )
    acting = session.get(Assignment, (tenant, asked.device, asked.kind, asked.name, Mode.ACT))
    if acting is not None and acting.artifact == artifact.sha256:
        raise BadChange(
            _(
                "release {release} of {name} is to act on {device}; in its own shadow it would learn nothing"
            ).format(release=artifact.release, name=asked.name, device=asked.device)
        )


def _place(kind: str, name: str, mode: Mode) -> str:
    """What changes, as a person who approves it reads it."""
    return f"{kind} {name} in shadow" if mode is Mode.SHADOW else f"{kind} {name}"


def _releases(devices: Iterable[Touched]) -> dict[str, int]:
    """How many devices are to have which release."""
    return dict(Counter(_release(device.has) for device in devices))


def _release(number: int | None) -> str:
    return f"release {number}" if number else "none"
