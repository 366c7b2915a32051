"""Where a scenario runs: everything on this machine's loopback, or center and field in namespaces.

A rig says how to start a program on each side, under which host the field reaches the center, and
what the link between them does.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from hil import relay
from hil.errors import RigError
from hil.processes import Child
from hil.relay import Conditions
from hil.stopping import pause

READY_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Rig:
    """A place to run in. ``field`` is put before every command that runs on the device's side."""

    name: str
    host: str
    field: tuple[str, ...]
    link_file: Path | None

    def set_link(self, conditions: Conditions) -> None:
        """Have the link behave so from now on.

        Raises:
            RigError: this rig has no link.
        """
        if self.link_file is None:
            raise RigError(_("the rig {name} has no link to disturb").format(name=self.name))
        beside = self.link_file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(conditions)))
        beside.replace(self.link_file)


def why_not(name: str) -> str:
    """Why the rig ``name`` cannot be had here; empty if it can."""
    if name == "simulated":
        return ""
    if os.geteuid() != 0:
        return _("network namespaces need root")
    if shutil.which("ip") is None:
        return _("the command 'ip' is missing; install iproute2")
    if not Path("/dev/net/tun").exists():
        return _("/dev/net/tun is missing; load the kernel module 'tun'")
    return ""


@contextmanager
def open_rig(name: str, folder: Path, seed: int) -> Iterator[Rig]:
    """The rig ``name``, working in ``folder``; everything that it made is gone afterwards.

    Raises:
        RigError: it cannot be had here.
    """
    if reason := why_not(name):
        raise RigError(reason)
    if name == "simulated":
        yield Rig(name, "localhost", (), None)
        return
    with _namespaces(folder, seed) as rig:
        yield rig


@contextmanager
def _namespaces(folder: Path, seed: int) -> Iterator[Rig]:
    """This process moves into the center's namespace, so that it can ask the server there."""
    center, field = f"argan-center-{os.getpid()}", f"argan-field-{os.getpid()}"
    with ExitStack() as stack:
        for namespace in (center, field):
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "delete", namespace)
        command = (sys.executable, "-m", "hil.relay", "--folder", str(folder))
        options = ("--center", center, "--field", field, "--seed", str(seed))
        link = Child("relay", (*command, *options), folder / "relay.log")
        link.start()
        stack.callback(link.stop)
        _await_relay(link, folder / "relay.ready")
        stack.enter_context(_inside(center))
        yield Rig("namespace", relay.CENTER, ("ip", "netns", "exec", field), folder / "link.json")


def _await_relay(link: Child, ready: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not ready.exists():
        if not link.alive or time.monotonic() > deadline:
            said = link.log.read_text(errors="replace")[-500:]
            raise RigError(_("the link between the namespaces did not come up: {said}").format(said=said))
        pause(0.05)


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(home)
        os.close(there)


def _enter(namespace: int) -> None:
    try:
        relay.enter(namespace)
    except OSError as error:
        raise RigError(
            _("cannot enter a network namespace: {reason}").format(reason=error.strerror)
        ) from error


def _ip(*arguments: str) -> None:
    done = subprocess.run(("ip", *arguments), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RigError(
            _("'ip {arguments}' failed: {reason}").format(
                arguments=" ".join(arguments), reason=done.stderr.strip()
            )
        )
