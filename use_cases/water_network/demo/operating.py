"""Who runs the city's fleet: works through ``fleet`` alone, as a person at a shell does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleet_protocol.texts import _
from hil.approver import Approver
from hil.errors import StepFailed
from use_cases.water_network import faulty_models, models_folder
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.policies import PACK, in_fast_time

_PASSPHRASE: Final = "of this demonstration alone, and gone with it"  # noqa: S105 - it protects nothing

FLEET: Final = (sys.executable, "-m", "fleet_console")

_MAKERS: Final[dict[int, Callable[[Path], None]]] = {
    plan.BAD: faulty_models.make_bad,
    plan.WORSE: faulty_models.make_worse,
    plan.MENDED: faulty_models.make_mended,
}


@dataclass(frozen=True, slots=True)
class Order:
    """A rollout to start: which release of what, in which waves, and why; for the group of the plan."""

    release: int
    waves: str
    reason: str
    kind: str = "model"
    name: str = plan.MODEL


class OperatorError(RuntimeError):
    """A command of the operator's failed; the message says what it answered."""


class Operator:
    """Has the token of the server on ``server`` and, in ``keys``, the offline keys.

    What the operator asks for is approved by somebody else, with a token of their own.
    """

    def __init__(self, folder: Path) -> None:
        """Keep keys, passphrase and releases in ``folder``."""
        self.server: Final = folder / "server"
        self._keys: Final = folder / "keys"
        self._releases: Final = folder / "releases"
        self._passphrase: Final = folder / "passphrase"
        self._passphrase.write_text(_PASSPHRASE)
        self._approver: Final = Approver(self.server, folder / "approver.token", self._run)

    def fleet(self, *arguments: str) -> str:
        """What ``fleet`` prints, asked of this server.

        Raises:
            OperatorError: it ended with an error.
        """
        return self.fleet_alone(*arguments, "--data", str(self.server))

    def fleet_alone(self, *arguments: str) -> str:
        """What ``fleet`` prints, with no server.

        Raises:
            OperatorError: it ended with an error.
        """
        done = self._run(*arguments)
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise OperatorError(
                _("fleet {command} failed: {reason}").format(command=" ".join(arguments[:3]), reason=said)
            )
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*FLEET, *arguments),
            stdin=subprocess.DEVNULL,  # else a ceremony asks whoever watches the demonstration
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"ARGAN_PASSPHRASE_FILE": str(self._passphrase), "NO_COLOR": "1"},
            start_new_session=True,
        )

    def hold_ceremony(self) -> None:
        """Make the offline keys; the machine that is never online is this one."""
        self.fleet("key", "ceremony", "--keys", str(self._keys))

    def save_group(self) -> None:
        """Save who is meant by the rollouts."""
        self.fleet("group", "set", plan.GROUP, *plan.GROUP_FILTER)

    def publish(self, release: int) -> None:
        """Sign the leak model's ``release`` and publish it."""
        self.fleet("publish", "model", str(self._release(release)), "--keys", str(self._keys))

    def publish_policy(self) -> None:
        """Sign and publish the policy that was calibrated for the better model."""
        self._releases.mkdir(exist_ok=True)
        policy = self._releases / "leak_2.toml"
        policy.write_text(in_fast_time((PACK / "policies" / policy.name).read_text()))
        reason = _("calibrated for the better model")
        self.fleet("publish", "policy", str(policy), "--keys", str(self._keys), "--reason", reason)
        self._approve()

    def start_rollout(self, order: Order) -> str:
        """Ask for ``order``, and have somebody else approve it; the rollout's id."""
        said = self.fleet(
            "rollout", "start", f"--{order.kind}", order.name, "--release", str(order.release),
            "--group", plan.GROUP, "--wave", order.waves, "--soak", "1s", "--reason", order.reason, "--json",
        )  # fmt: skip
        page: dict[str, Any] = json.loads(said)
        self._approve()
        return str(page["proposal"]["id"])

    def watching(self, rollout: str) -> tuple[str, ...]:
        """The command that watches ``rollout`` until it ends."""
        return (*FLEET, "rollout", "watch", rollout, "--data", str(self.server))

    def assign(self, device: str, release: int, reason: str, *options: str) -> None:
        """Let one device have ``release`` of the leak model."""
        self.fleet("assign", device, "model", plan.MODEL, str(release), "--reason", reason, *options)
        self._approve()

    def pack_agent(self, wheels: Path, release: int, out: Path) -> None:
        """Make a build of the agent's own software of ``wheels``."""
        health = ("--least-s", "2", "--deadline-s", "60")
        self.fleet_alone("agent", "pack", str(wheels), "--release", str(release), "--out", str(out), *health)

    def publish_agent(self, build: Path, version: str) -> None:
        """Sign and publish a build of the agent."""
        reason = _("the agent {version}").format(version=version)
        self.fleet("publish", "agent", str(build), "--keys", str(self._keys), "--reason", reason)
        self._approve()

    def assign_agent(self, device: str, release: int) -> None:
        """Let one device have a build of the agent."""
        reason = _("no network reaches it; it goes on a stick")
        self.fleet("assign", device, "agent", "argan", str(release), "--reason", reason)
        self._approve()

    def unassign(self, device: str) -> None:
        """Let one device be given nothing any more."""
        self.fleet("unassign", device, "model", plan.MODEL, "--reason", _("it was refused"))
        self._approve()

    def _approve(self) -> None:
        try:
            self._approver.approve()
        except StepFailed as error:
            raise OperatorError(str(error)) from error

    def _release(self, release: int) -> Path:
        if release == plan.BETTER:
            return models_folder() / "pressure_leak_2"
        folder = self._releases / str(release)
        if not folder.exists():
            self._releases.mkdir(exist_ok=True)
            _MAKERS[release](folder)
        return folder
