"""``edge-agent update``: what stands, why something was refused, and updates from a stick.

``from FILE`` goes through the running agent where there is one, over its Unix socket; else it acts
itself, under the same lock. The new version is then on probation when the agent starts next.
"""

import argparse
import asyncio
import socket
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config, load
from edge_agent.errors import FolderInUse, UpdateError
from edge_agent.slots import status as slots
from edge_agent.updates import records
from edge_agent.updates.records import Entry, Installed, Journal
from fleet_protocol.messages import UpdateReport
from fleet_protocol.targets import WORDS, Refusal
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

SOCKET: Final = "agent.sock"

_ANSWER_S: Final = 3600.0
"""A stick's artifacts may be large and the board slow; Ctrl-C ends the waiting, not the update."""

_MAX_ANSWER: Final = 1 << 20
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
        ("from", _("apply the updates in a bundle file, without a server")),
    ):
        action = actions.add_parser(name, help=text, description=text)
        if name == "from":
            action.add_argument("file", type=Path, metavar="FILE", help=_("bundle, as exported by 'fleet'"))
        action.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))


def run(options: argparse.Namespace) -> int:
    """Carry out one of the actions; the exit code."""
    config = load(options.config)
    match options.action:
        case "status":
            return _status(config)
        case "explain":
            return _explain(config)
        case _:
            return _apply(config, options.file.absolute())


def _status(config: Config) -> int:
    journal, installed = _records(config)
    for line in slots.lines(config.data, installed):
        _say(line)
    for slot in installed.slots:
        if slot.current:
            _say(
                _("{path} {version} is installed").format(
                    path=slot.current.path, version=slot.current.description.version
                )
            )
    for entry in journal.entries:
        _say(_line(entry))
    for refused in journal.looked.refused:
        _say(_("{scope}: refused, {refusal}").format(scope=refused.scope, refusal=refused.refusal))
    if journal.looked.problem:
        _say(_("The last look was not whole: {problem}").format(problem=journal.looked.problem))
    if not (installed.slots or journal.entries or journal.looked.refused):
        _say(_("No update has been offered; what runs came fitted."))
    return 0


def _explain(config: Config) -> int:
    """Class, meaning and next step of everything that did not come about."""
    journal, _installed = _records(config)
    told = 0
    for refused in journal.looked.refused:
        _explain_refusal(refused.scope, refused.refusal, refused.detail)
        told += 1
    for entry in journal.entries:
        if entry.refusal is not None:
            _explain_refusal(entry.target.path, entry.refusal, entry.detail)
        elif entry.state.value in _BAD:
            _say(_line(entry))
            _say("  " + _("What ran before runs. Publish a mended version under a higher release."))
        else:
            continue
        told += 1
    if not told:
        _say(_("Nothing was refused, and nothing failed."))
    return 0


def _explain_refusal(scope: str, refusal: Refusal, detail: str) -> None:
    words = WORDS[refusal]
    _say(_("{scope}: refused as {refusal}").format(scope=scope, refusal=refusal))
    for line in (words.meaning, detail, words.next_step):
        if line:
            _say(f"  {line}")


def _apply(config: Config, file: Path) -> int:
    """Apply a bundle; the exit code says whether anything in it was refused or failed."""
    from edge_agent.agent import alone_in

    try:
        with alone_in(config.data):
            reports = asyncio.run(_offline(config, file))
    except FolderInUse:
        reports = _through_the_agent(config.data / SOCKET, file)
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
    setting = Setting(config.time_factor, clock, Desk(clock, health), profile.runtimes.allowed)
    models = Models(config.models, health, setting, artifacts, lambda: executor.installed)
    try:
        await models.run(lambda _pipeline, _reports: None)
        await updates.apply(file)
        while await executor.advance(models):
            pass
    finally:
        models.close()
    return updates.reports()


def _through_the_agent(path: Path, file: Path) -> list[UpdateReport]:
    """Ask the agent that runs."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "update.apply", "params": {"path": str(file)}}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(call) + b"\n")
            with connection.makefile("rb") as answers:
                answer = msgspec.json.decode(answers.readline(_MAX_ANSWER))
    except (OSError, msgspec.MsgspecError) as error:
        raise FolderInUse(
            _("the agent runs and does not answer on {path} ({reason}); stop it, then try again").format(
                path=path, reason=error
            )
        ) from None
    return _reports_in(answer)


def _reports_in(answer: Any) -> list[UpdateReport]:
    try:
        if "error" in answer:
            raise UpdateError(str(answer["error"]["message"]))
        return msgspec.convert(answer["result"]["items"], list[UpdateReport])
    except (TypeError, KeyError, msgspec.ValidationError) as error:
        raise UpdateError(_("the agent's answer is none: {reason}").format(reason=error)) from None


def _records(config: Config) -> tuple[Journal, Installed]:
    from edge_agent.updates.updates import folder_of

    folder = folder_of(config)
    return records.load(folder, Journal), records.load(folder, Installed)


def _line(entry: Entry) -> str:
    described = entry.target.description
    return (
        _("{path} {version}: {state} {refusal} {detail}")
        .format(
            path=entry.target.path,
            version=described.version,
            state=entry.state,
            refusal=entry.refusal or "",
            detail=entry.detail,
        )
        .rstrip()
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
