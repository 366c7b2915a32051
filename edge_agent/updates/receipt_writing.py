"""Writes the receipt of a bundle to a file, for a courier: through the agent that runs, or without one."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_agent import durable
from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config
from edge_agent.errors import AgentError, FolderInUse, UpdateBroken, UpdateError
from edge_agent.updates import receipts
from edge_agent.updates.attesting import said_by, signed
from edge_agent.updates.calling import SOCKET, call
from fleet_protocol.messages import UpdateReport
from fleet_protocol.texts import _
from fleet_protocol.update_states import FINAL, UpdateState
from fleet_protocol.versions import RECEIPT_SUFFIX

_WAIT_S: Final = 300.0
"""How long the way to probation may take; the board tests a model on its golden inputs meanwhile."""

_LOOK_S: Final = 0.2

_FAR: Final = frozenset({*FINAL, UpdateState.IDLE, UpdateState.PROBATION})
"""States beyond which waiting brings nothing for a while: probation takes as long as its terms say."""


def settled(socket: Path) -> list[UpdateReport]:
    """Where the updates of the agent at ``socket`` stand, once all of them are on probation or over."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        is_late = time.monotonic() > deadline
        try:
            reports = _reports_in(call(socket, "update.status", {}))
        except FolderInUse:
            # An agent that replaces its own software is away for a moment.
            if is_late:
                raise
        else:
            if is_late or all(report.state in _FAR for report in reports):
                return reports
        time.sleep(_LOOK_S)


def write_beside(config: Config, bundle: Path, out: Path | None) -> None:
    """Write the receipt of ``bundle``, which was just applied, to ``out`` or beside it.

    What goes wrong is only told: the update does not depend on it.
    """
    from edge_agent.updates.updates import folder_of

    if not receipts.asks(folder_of(config), bundle):
        return
    try:
        write(config, out or bundle.with_name(bundle.name + RECEIPT_SUFFIX))
    except AgentError as error:
        sys.stderr.write(f"edge-agent: {error}\n")


def write(config: Config, out: Path) -> int:
    """Write the receipt of the last bundle to ``out``.

    Raises:
        UpdateBroken: no bundle has asked for one, or ``out`` cannot be written.
        IdentityError: the device's key or certificate cannot be used.
    """
    receipt, is_settled = _receipt(config)
    try:
        durable.write(out, receipt.encode() + b"\n", 0o644)
    except OSError as error:
        raise UpdateBroken(
            _(
                "the receipt cannot be written to {file} ({reason}); "
                "write it elsewhere with: edge-agent update receipt --out FILE"
            ).format(file=out, reason=os.strerror(error.errno or 0))
        ) from None
    said = (
        _("The receipt is in {file}; bring it back: fleet receipt import FILE")
        if is_settled
        else _(
            "A receipt is in {file}; an update is still on its way or on probation. For the final one, "
            "later: edge-agent update receipt --out FILE"
        )
    )
    sys.stdout.write(said.format(file=out) + "\n")
    return 0


def _receipt(config: Config) -> tuple[str, bool]:
    """The receipt, and whether it is final: through the agent that runs, or made here."""
    from edge_agent.agent import alone_in

    try:
        with alone_in(config.data):
            return _made_here(config)
    except FolderInUse:
        answer = call(config.data / SOCKET, "update.receipt", {})
        return str(answer["receipt"]), bool(answer["settled"])


def _made_here(config: Config) -> tuple[str, bool]:
    from edge_agent.agent import open_executor
    from edge_agent.allowance import allowance
    from edge_agent.service.health import HealthBoard
    from edge_agent.updates.store import Store
    from edge_agent.updates.updates import Updates, folder_of

    clock = Clock(boot_id(), may_stop=allowance(config).profile.rtc.may_stop)
    executor = open_executor(config, Store(folder_of(config)), clock)
    if config.updates is None:
        raise AssertionError  # open_executor has seen to it
    updates = Updates(config, config.updates, clock, HealthBoard(clock))
    updates.take(executor)
    said = said_by(config, clock, executor, updates.reports(), receipts.wanted(executor.folder))
    return signed(config, said), said.is_settled


def _reports_in(answer: dict[str, Any]) -> list[UpdateReport]:
    try:
        return msgspec.convert(answer["items"], list[UpdateReport])
    except (KeyError, msgspec.ValidationError) as error:
        raise UpdateError(_("the agent's answer is none: {reason}").format(reason=error)) from None
