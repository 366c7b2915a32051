"""Which software of the agent the launcher starts, in words; read from the disk, so also without an agent."""

from pathlib import Path

from edge_agent.launcher import record
from edge_agent.launcher.decision import ATTEMPTS
from edge_agent.launcher.record import FITTED, FOLDER, Record, RecordUnreadable
from edge_agent.updates.records import Installed
from fleet_protocol.targets import Kind
from fleet_protocol.texts import _


def lines(data: Path, installed: Installed) -> list[str]:
    """What there is to tell of the slots under ``data``; nothing where no update ever came."""
    folder = data / FOLDER
    if not (folder / record.CURRENT).exists():
        return []
    try:
        standing = record.read(folder)
    except RecordUnreadable as error:
        return [_("{file} cannot be read: {reason}").format(file=folder / record.CURRENT, reason=error)]
    return list(_told(standing, installed))


def _told(standing: Record, installed: Installed) -> list[str]:
    told = [_("The agent's software: {name}").format(name=_name(standing.current, installed))]
    if standing.trying:
        told.append(
            _("It has not proved itself yet; start {attempt} of {limit}. Before it: {name}").format(
                attempt=standing.attempts, limit=ATTEMPTS, name=_name(standing.previous, installed)
            )
        )
    if standing.reason:
        told.append(
            _("It runs again, because what was to follow it was given up: {reason}").format(
                reason=standing.reason
            )
        )
    return told


def _name(slot: str, installed: Installed) -> str:
    if slot == FITTED:
        return _("the base installation")
    for each in installed.slots:
        for target in (each.current, each.previous):
            if each.kind is Kind.AGENT and target is not None and target.sha256 == slot:
                return _("{version}, release {release}, in slot {slot}").format(
                    version=target.description.version, release=target.description.release, slot=slot[:12]
                )
    return _("slot {slot}").format(slot=slot[:12])
