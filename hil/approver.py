"""The second person at an installation: looks at what waits, and approves it with a token of their own."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from fleet_protocol.texts import _
from fleet_server.access.roles import RoleName
from fleet_server.access.tokens import digest
from fleet_server.clock import wall_ms
from fleet_server.config import load
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import Person, Role, Token
from fleet_server.files import write_durably
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
        """Give her an account with the role of an approver, and her token into its file."""
        config = load(self._data)
        token = secrets.token_urlsafe(32)
        tenant, now_ms = config.tenant, wall_ms()
        engine = open_engine(config.database_url)
        with writing(engine) as session:
            session.add(Person(tenant=tenant, id=NAME, name=NAME, created_ms=now_ms))
            session.flush()
            session.add(Role(tenant=tenant, person=NAME, role=RoleName.APPROVER))
            session.add(
                Token(tenant=tenant, person=NAME, sha256=digest(token), name="first", created_ms=now_ms)
            )
        engine.dispose()
        write_durably(self._token, token.encode() + b"\n")

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
