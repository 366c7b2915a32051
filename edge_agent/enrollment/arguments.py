"""The command line of ``edge-agent enrol``; apart from what it does, so that it costs the agent nothing."""

import argparse
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _

WAIT_S: Final = 3600.0
"""How long a board of a factory batch waits for somebody's decision before it gives its shell back."""

_SPELLINGS: Final = ("enrol", "enroll")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``enrol``, which may be spelled ``enroll``."""
    text = _("give this device its identity: by an invitation, by its factory batch, or by files on a stick")
    command = commands.add_parser(_SPELLINGS[0], aliases=_SPELLINGS[1:], help=text, description=text)
    way = command.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "token",
        nargs="?",
        metavar="TOKEN",
        help=_("what 'fleet device invite' printed; '-' reads it from stdin"),
    )
    way.add_argument("--token-file", type=Path, metavar="FILE", help=_("a file with the invitation"))
    way.add_argument(
        "--claim", type=Path, metavar="FILE", help=_("what a factory image carries for its batch")
    )
    way.add_argument(
        "--request", type=Path, metavar="FILE", help=_("write a request to be carried to the office")
    )
    way.add_argument(
        "--answer", type=Path, metavar="FILE", help=_("take in what the office answered to the request")
    )
    command.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help=_("the device's folder; default: this one")
    )
    command.add_argument("--device", metavar="NAME", help=_("with --request: what the device is called"))
    command.add_argument(
        "--ca-fingerprint",
        action="append",
        metavar="SHA256",
        help=_("with --answer: the fleet's authority as the office says it; once for each that there is"),
    )
    command.add_argument(
        "--wait",
        type=float,
        default=WAIT_S,
        metavar="SECONDS",
        help=_("with --claim: how long to wait for a decision; 0 asks once. Default: {seconds:g}").format(
            seconds=WAIT_S
        ),
    )
