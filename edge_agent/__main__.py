"""The command line of the agent.

``edge-agent run --config FILE`` runs it; ``edge-agent launch --config FILE`` its current software, or the one
before where that does not come up; ``edge-agent check --config FILE`` says, without network, what would
keep it from running; ``edge-agent doctor --config FILE [--json]`` looks at the board and
its surroundings too; ``edge-agent update …`` shows and applies signed updates; ``edge-agent enrol …`` gives
the device its identity, ``edge-agent identity`` shows and renews it. Exit codes: 0 well, 1 a fault of the
agent, 2 wrong usage, 3 configuration, 4 identity, 5 model, 6 data folder in use, 7 update refused or failed,
8 enrollment refused or not possible, 9 its server not reached, 10 its server not to be trusted, 11 not
decided yet, 12 certificate not renewed, 75 to be started anew by the launcher; of the doctor 0 all is
well, 1 something is not.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_agent import AGENT
from edge_agent.errors import (
    AgentError,
    ConfigError,
    EnrollmentError,
    EnrollmentUnreachable,
    EnrollmentUntrusted,
    EnrollmentWaiting,
    FolderInUse,
    IdentityError,
    InferenceError,
    RenewalError,
    UpdateError,
)
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from edge_agent.agent import Agent

EXIT_CODES: Final[tuple[tuple[type[AgentError], int], ...]] = (
    (ConfigError, 3),
    (IdentityError, 4),
    (InferenceError, 5),
    (FolderInUse, 6),
    (UpdateError, 7),
    (EnrollmentUnreachable, 9),
    (EnrollmentUntrusted, 10),
    (EnrollmentWaiting, 11),
    (EnrollmentError, 8),
    (RenewalError, 12),
    (AgentError, 1),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except AgentError as error:
        sys.stderr.write(f"edge-agent: {error}\n")
        return _exit_code(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge-agent", description=_("The Argan agent of one device."))
    parser.add_argument("--version", action="version", version=AGENT)
    commands = parser.add_subparsers(dest="command", required=True)
    from edge_agent.enrollment import arguments as enrollment
    from edge_agent.identity import command as identity
    from edge_agent.updates import command as updates

    updates.add_to(commands)
    enrollment.add_to(commands)
    identity.add_to(commands)
    for name, text in (
        ("launch", _("run the agent's current software, and the one before where that does not come up")),
        ("run", _("run the agent")),
        ("check", _("check configuration, identity and models")),
        ("doctor", _("look at the board and its surroundings too, and say what to do")),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))
        if name == "run":
            # What the launcher alone gives; a person has no use for it.
            command.add_argument("--fitted", type=Path, help=argparse.SUPPRESS)
    command.add_argument("--json", action="store_true", help=_("print a list of findings as JSON"))
    return parser


def _run(options: argparse.Namespace) -> int:
    from edge_agent.agent import Agent
    from edge_agent.allowance import allowance
    from edge_agent.clock import Clock, boot_id
    from edge_agent.config import load
    from edge_agent.identity.identity import load_identity
    from edge_agent.launcher.record import RESTART
    from edge_agent.service.log_tail import FORMAT, LogTail
    from edge_agent.slots.installer import Launched

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=FORMAT)
    log_tail = LogTail()
    logging.getLogger().addHandler(log_tail)
    config = load(options.config)
    clock = Clock(boot_id(), may_stop=allowance(config).profile.rtc.may_stop)
    identity = load_identity(config.device, config.broker)
    launched = Launched(options.config.absolute(), options.fitted) if options.fitted else None
    agent = Agent(config, identity, clock, log_tail=log_tail, launched=launched)
    _until_signal(agent)
    return RESTART if agent.wants_restart else 0


def _launch(options: argparse.Namespace) -> int:
    """Become the launcher, which is small: nothing of what was loaded here is kept."""
    config = str(options.config.absolute())
    os.execv(sys.executable, (sys.executable, "-I", "-m", "edge_agent.launcher", "--config", config))  # noqa: S606 - no shell


def _until_signal(agent: "Agent") -> None:
    """Run ``agent`` until SIGTERM or SIGINT.

    The loop is not run by asyncio.run, which would wait for a connection attempt that hangs in its
    thread; by then everything is committed and there is nothing to wait for.
    """
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_cancelled_by_signal(agent))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _cancelled_by_signal(agent: "Agent") -> None:
    running = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logging.getLogger("edge_agent").info(_("stopped"))


def _check(options: argparse.Namespace) -> int:
    """Say everything that is wrong, and what to do; the first decides the exit code."""
    from edge_agent.check import problems

    found = problems(options.config)
    for problem in found:
        sys.stdout.write(f"{problem}\n")
    if not found:
        sys.stdout.write(_("Nothing is wrong.") + "\n")
    return _exit_code(found[0]) if found else 0


def _doctor(options: argparse.Namespace) -> int:
    """Say everything that was looked at, and what to do; a configuration that cannot be read is a finding."""
    from edge_agent.config import load
    from edge_agent.service.doctor import findings, from_error, table

    try:
        found = findings(load(options.config))
    except ConfigError as error:
        found = [from_error("configuration", error)]
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        sys.stdout.write(table(found))
    return 0 if all(each.ok for each in found) else 1


def _exit_code(error: AgentError) -> int:
    return next(code for family, code in EXIT_CODES if isinstance(error, family))


def _update(options: argparse.Namespace) -> int:
    from edge_agent.updates.command import run

    return run(options)


def _identity(options: argparse.Namespace) -> int:
    from edge_agent.identity.command import run

    return run(options)


def _enroll(options: argparse.Namespace) -> int:
    from edge_agent.enrollment.command import run

    return run(options)


_COMMANDS: Final = {
    "run": _run,
    "launch": _launch,
    "check": _check,
    "doctor": _doctor,
    "update": _update,
    "identity": _identity,
    "enrol": _enroll,
    "enroll": _enroll,
}


def command() -> None:
    """The console script: leave with the exit code, whatever thread still hangs in a connection attempt."""
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
