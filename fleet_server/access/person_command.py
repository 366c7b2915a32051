"""``fleet-server person``: accounts made by whoever has a shell on the server, the first ones above all."""

import argparse
import getpass
import re
from pathlib import Path

from fleet_protocol.texts import _
from fleet_server.access import people
from fleet_server.access.people import NAME, WORD, Right
from fleet_server.access.roles import Actor, RoleName
from fleet_server.access.tokens import new_token
from fleet_server.config import SETTINGS_FILE, load
from fleet_server.database.engine import open_engine
from fleet_server.errors import ConfigError
from fleet_server.files import write_durably


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``person`` and what it can do to ``commands``."""
    person = commands.add_parser("person", help=_("make accounts, with the server's data folder"))
    actions = person.add_subparsers(required=True, metavar="COMMAND")
    add = actions.add_parser("add", help=_("make an account"))
    add.add_argument("name", type=_name, metavar="NAME")
    add.add_argument("--data", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    add.add_argument("--role", choices=[role.value for role in RoleName], required=True)
    add.add_argument("--site", type=_word, default="", help=_("at this site alone"))
    add.add_argument("--tag", type=_word, default="", help=_("on devices with this tag alone"))
    add.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=_("make a token too, and write it to this new file, for its owner alone"),
    )
    add.set_defaults(run=_add)


def _add(options: argparse.Namespace) -> None:
    if not (options.data / SETTINGS_FILE).exists():
        raise ConfigError(
            _("no server has run on {data} yet; start it with: fleet-server serve --data {data}").format(
                data=options.data
            )
        )
    if options.token_file is not None and options.token_file.exists():
        raise ConfigError(_("{path} is there already; choose another").format(path=options.token_file))
    config = load(options.data)
    engine = open_engine(config.database_url)
    token = new_token() if options.token_file is not None else ""
    if token:
        # The file first: a token that the database does not know yet is worth nothing.
        write_durably(options.token_file, token.encode() + b"\n")
    try:
        right = Right(RoleName(options.role), options.site, options.tag)
        actor = Actor.shell(getpass.getuser())
        people.add(engine, config.tenant, actor, options.name, [right], token)
    except BaseException:
        if token:
            options.token_file.unlink()
        raise
    finally:
        engine.dispose()
    print(_("{name} is added.").format(name=options.name))  # noqa: T201 - it is a command


def _name(text: str) -> str:
    return _matching(text, NAME, _("use 1 to 63 of a-z, 0-9, '.', '-', '_' and '@'"))


def _word(text: str) -> str:
    return _matching(text, WORD, _("use 1 to 63 of a-z, 0-9 and '-'"))


def _matching(text: str, pattern: str, hint: str) -> str:
    if not re.match(pattern, text) or text.endswith("\n"):
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: {hint}")
    return text
