"""``edge-agent enrol`` as a real process, and what invites devices to it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from fleet_protocol.enrollment import Invitation, decode, encode
from tests.support.fleet_server import ServerProcess, fleet


def launch(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start ``edge-agent enrol`` without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "enrol", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def enrol(*arguments: str | Path, said: str = "") -> subprocess.CompletedProcess[str]:
    """One ``edge-agent enrol``, with ``said`` on its stdin."""
    process = launch(*arguments)
    out, err = process.communicate(said, timeout=60)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def ordered(server: ServerProcess, *arguments: str | Path) -> Any:
    """What ``fleet device …`` answers, which has to succeed."""
    done = fleet("device", *arguments, "--json", "--data", server.data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def invite(server: ServerProcess, device: str, *options: str) -> str:
    """The token of a new invitation for a simulated board."""
    invited = ordered(server, "invite", device, "--profile", "simulated", *options)
    return str(invited["token"])


def changed(token: str, **fields: object) -> str:
    """The token with other contents, and a checksum that fits."""
    altered: Invitation = msgspec.structs.replace(decode(token), **fields)
    return encode(altered)
