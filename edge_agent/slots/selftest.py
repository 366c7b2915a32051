"""An agent's software tries itself on this device, beside the one that runs; it changes nothing.

``python -I -B -m edge_agent.slots.selftest --config FILE`` loads everything that the agent runs on, reads
the configuration, the identity and the schema of the spool, and opens the models on their golden inputs.
Every version answers to this call: the version that runs asks the one that shall follow it.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from edge_agent import AGENT
from edge_agent.check import problems
from edge_agent.config import load
from edge_agent.errors import ConfigError, SpoolError
from edge_agent.slots.build import BOARD
from edge_agent.slots.spoken import Findings
from edge_agent.telemetry.spool import SCHEMA_VERSION, schema_of
from edge_agent.telemetry.store import FILE_NAME
from fleet_protocol.texts import _

_PARTS: Final = (
    "edge_agent.__main__",
    "edge_agent.agent",
    "edge_agent.sensors.modbus",
    "edge_agent.updates.look",
    "fleet_protocol.policy",
)
"""What draws in everything that the agent, and the children that it starts, ever load."""


def main() -> None:
    """Try, and say what was found."""
    parser = argparse.ArgumentParser(description=_("Try this software on this device, changing nothing."))
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))
    config = parser.parse_args().config
    found = [*_import_problems(), *_spool_problems(config), *map(str, problems(config))]
    sys.stdout.buffer.write(msgspec.json.encode(Findings(AGENT, SCHEMA_VERSION, found)))


def _import_problems() -> Iterator[str]:
    """Load it without the base installation, from which a slot is to have the inference runtimes alone."""
    path, board = list(sys.path), _board()
    sys.path[:] = [each for each in path if each != board]
    for name in _PARTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever an import raises is the finding
            yield _("{name} cannot be loaded: {reason}").format(name=name, reason=repr(error))
    sys.path[:] = path


def _board() -> str:
    """The packages of the base installation, where this runs in a slot."""
    files = (Path(folder) / BOARD for folder in sys.path)
    return next((file.read_text(encoding="utf-8").strip() for file in files if file.is_file()), "")


def _spool_problems(file: Path) -> Iterator[str]:
    try:
        spool = load(file).data / FILE_NAME
        found = schema_of(spool) if spool.exists() else SCHEMA_VERSION
    except (ConfigError, SpoolError) as error:
        yield str(error)
        return
    if found != SCHEMA_VERSION:
        yield _("the spool has schema {found}; this agent writes {own}").format(
            found=found, own=SCHEMA_VERSION
        )


if __name__ == "__main__":
    main()
