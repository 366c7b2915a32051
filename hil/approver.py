"""The second person at an installation: looks at what waits, and approves it with a token of their own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from fleet_protocol.texts import _
from hil.errors import StepFailed

NAME: Final = "anna"

Run = Callable[..., CompletedProcess[str]]


class Approver:
    """Anna, of the server on the folder ``data``; ``run`` runs a command of ``fleet``."""

    def __init__(self, data: Path, token: Path, run: Run) -> None:
        """``token`` is the file with her token."""
        self._data: Final = data
        self._token: Final = token
        self._run: Final = run

    def join(self) -> None:
        """Give her an account with the role of an approver, and her token into its file.

        Raises:
            StepFailed: she could not be given one.
        """
        account = ("person", "add", NAME, "--role", "approver", "--token-file", str(self._token))
        done = subprocess.run(
            (sys.executable, "-m", "fleet_server", *account, "--data", str(self._data)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(_("fleet-server person add: {reason}").format(reason=done.stderr.strip()))

    def approve(self) -> list[str]:
        """Approve whatever waits; the proposals' ids.

        Raises:
            StepFailed: something could not be approved, or was not carried out.
        """
        if not self._token.exists():
            self.join()
        waiting: list[dict[str, Any]] = json.loads(self._fleet("list", "--waiting", "--json"))
        for proposal in waiting:
            self._fleet("approve", proposal["id"], "--yes", "--reason", _("as agreed"))
        return [proposal["id"] for proposal in waiting]

    def _fleet(self, *arguments: str) -> str:
        endpoints = json.loads((self._data / "endpoints.json").read_text())
        where = (
            "--server",
            endpoints["api_url"],
            "--ca",
            endpoints["api_ca"],
            "--token-file",
            str(self._token),
        )
        done = self._run("proposal", *arguments, *where)
        if done.returncode != 0:
            raise StepFailed(
                _("fleet proposal {arguments}: {reason}").format(
                    arguments=" ".join(arguments), reason=done.stderr.strip()
                )
            )
        return done.stdout
