"""``edge-agent update``: what stands, why something was refused, and updates from a stick.

``from FILE`` goes through the running agent where there is one, over its Unix socket; else it acts
itself, under the same lock. The new version is then on probation when the agent starts next.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config, load
from edge_agent.errors import FolderInUse
from edge_agent.updates import canceling, receipt_writing, records, telling
from edge_agent.updates.calling import SOCKET, call
from edge_agent.updates.ledger import DOWNLOADS
from edge_agent.updates.records import Journal
from fleet_protocol.messages import UpdateReport
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

_BAD: Final = frozenset({UpdateState.FAILED.value, UpdateState.ROLLED_BACK.value})
_REFUSED: Final = 7


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``update`` and what can be done with it."""
    text = _("show and apply signed updates")
    actions = commands.add_parser("update", help=text, description=text).add_subparsers(
        dest="action", required=True
    )
    for name, text in (
        ("status", _("say what is installed and where each update stands")),
        ("explain", _("say why something was refused or failed, and what to do")),
        ("cancel", _("stop what is being fetched, and keep what has come")),
        ("resume", _("let what was canceled go on")),
        ("history", _("say what was installed, taken back or refused, when and why")),
        ("from", _("apply the updates in a bundle file, without a server")),
        ("receipt", _("write the signed receipt of the last bundle again")),
    ):
        action = actions.add_parser(name, help=text, description=text)
        if name == "from":
            action.add_argument("file", type=Path, metavar="FILE", help=_("bundle, as exported by 'fleet'"))
            beside = _("where the receipt goes; beside the bundle where nothing is said")
            action.add_argument("--receipt", type=Path, metavar="FILE", help=beside)
        elif name == "receipt":
            action.add_argument(
                "--out", type=Path, required=True, metavar="FILE", help=_("where the receipt goes")
            )
        elif name not in {"cancel", "resume"}:
            action.add_argument("--json", action="store_true", help=_("print it as JSON"))
        action.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))


def run(options: argparse.Namespace) -> int:
    """Carry out one of the actions; the exit code."""
    config = load(options.config)
    match options.action:
        case "from":
            return _apply(config, options.file.absolute(), options.receipt)
        case "receipt":
            return receipt_writing.write(config, options.out)
        case "cancel" | "resume" as action:
            return _mark(config, action)
        case action:
            return telling.tell(config, action, as_json=options.json)


def _apply(config: Config, file: Path, receipt: Path | None) -> int:
    """Apply a bundle; the exit code says whether anything in it was refused or failed.

    The receipt is written whatever came of it: that it was refused is what the office has to know.
    """
    try:
        reports = _reports(config, file)
    finally:
        receipt_writing.write_beside(config, file, receipt)
    for report in reports:
        _say(
            _("{kind} {name} {version} (release {release}): {state} {refusal}").format(
                kind=report.kind,
                name=report.name,
                version=report.version,
                release=report.release,
                state=report.state,
                refusal=report.refusal or report.detail,
            )
        )
    if not reports:
        _say(_("The bundle orders nothing for this device."))
    return _REFUSED if any(report.state in _BAD for report in reports) else 0


def _reports(config: Config, file: Path) -> list[UpdateReport]:
    """Apply it, here or through the agent that runs; where each update stands."""
    from edge_agent.agent import alone_in

    try:
        with alone_in(config.data):
            return asyncio.run(_offline(config, file))
    except FolderInUse:
        call(config.data / SOCKET, "update.apply", {"path": str(file)})
        return receipt_writing.settled(config.data / SOCKET)


async def _offline(config: Config, file: Path) -> list[UpdateReport]:
    """Apply it here and now, as far as it goes without the agent: up to probation."""
    from edge_agent.agent import open_executor
    from edge_agent.allowance import allowance
    from edge_agent.escalation.desk import Desk
    from edge_agent.models import Models, Setting
    from edge_agent.service.health import HealthBoard
    from edge_agent.updates.store import Store
    from edge_agent.updates.updates import Updates, folder_of

    profile = allowance(config).profile
    clock = Clock(boot_id(), may_stop=profile.rtc.may_stop)
    artifacts = Store(folder_of(config))
    executor = open_executor(config, artifacts, clock)
    settings = config.updates
    if settings is None:
        raise AssertionError  # open_executor has seen to it
    health = HealthBoard(clock)
    updates = Updates(config, settings, clock, health)
    updates.take(executor)
    setting = Setting(
        config.time_factor,
        clock,
        Desk(clock, health),
        profile.runtimes.allowed,
        profile.limits.memory_mib.value,
    )
    models = Models(config.models, health, setting, artifacts, lambda: executor.installed)
    try:
        await models.run(lambda _pipeline, _reports: None)
        await updates.apply(file)
        while await executor.advance(models):
            pass
    finally:
        models.close()
    return updates.reports()


def _mark(config: Config, action: str) -> int:
    """Cancel what is being fetched, or let it go on."""
    from edge_agent.agent import alone_in
    from edge_agent.updates.updates import folder_of

    folder = folder_of(config)
    try:
        with alone_in(config.data):
            mark = canceling.cancel if action == "cancel" else canceling.resume
            paths = [target.path for target in mark(folder / DOWNLOADS, records.load(folder, Journal))]
    except FolderInUse:
        answer = call(config.data / SOCKET, f"update.{action}", {})
        paths = [str(path) for path in answer.get("items", ())]
    for path in paths:
        text = _("{path}: canceled") if action == "cancel" else _("{path}: goes on")
        _say(text.format(path=path))
    if not paths:
        _say(_("Nothing is being fetched.") if action == "cancel" else _("Nothing was canceled."))
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
