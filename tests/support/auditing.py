"""A chain of records with checkpoints, and somebody who tampers with both as an attacker would."""

import io
import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, text

from fleet_server.__main__ import main
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.audit.checkpoint_files import provide_audit_key
from fleet_server.audit.notary import write_checkpoint
from fleet_server.config import ServerConfig, Settings, resolve, save_settings
from fleet_server.database.engine import writing
from fleet_server.database.models import AuditRecord, Tenant
from tests.support.actors import SOMEBODY

TENANT = "default"
TRIGGERS = {
    "sqlite": [f"DROP TRIGGER audit_record_{name}" for name in ("update", "delete", "replace")],
    "postgresql": ["DROP TRIGGER audit_record_append_only ON audit_record"],
}


class Archive:
    """The record of changes of a server on ``engine`` with its data in ``folder``."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        folder.mkdir()
        url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
        self.settings = Settings(database_url=url, mqtt_port=8883, api_port=8080)
        save_settings(folder, self.settings)
        provide_audit_key(self.config)
        with writing(engine) as session:
            session.add(Tenant(id=TENANT, name=TENANT, created_ms=1))

    @property
    def config(self) -> ServerConfig:
        return resolve(self.folder, self.settings)

    @property
    def checkpoints(self) -> Path:
        return self.config.own_checkpoints

    def copy_to(self, path: Path) -> None:
        """Let checkpoints go to ``path`` too, as ``serve --audit-checkpoints`` does."""
        self.settings = msgspec.structs.replace(self.settings, audit_checkpoints=str(path))
        save_settings(self.folder, self.settings)

    def add(self, count: int = 1, *, sign: bool = True) -> None:
        """So many changes, and a checkpoint behind them."""
        for _number in range(count):
            with writing(self.engine) as session:
                audit.append(session, TENANT, SOMEBODY, Change("group.set", "north", detail={"filter": "é"}))
        if sign:
            write_checkpoint(self.engine, self.config)

    def records(self) -> list[AuditRecord]:
        with writing(self.engine) as session:
            rows = session.execute(text("SELECT * FROM audit_record ORDER BY number")).mappings()
            return [AuditRecord(**row) for row in rows]

    def tamper(self, *statements: str) -> None:
        """Drop the triggers as an attacker would, and run ``statements``."""
        with self.engine.execution_options(write_first=True).begin() as connection:
            for statement in (*TRIGGERS[self.engine.dialect.name], *statements):
                connection.execute(text(statement))

    def rewrite(self, first: int) -> None:
        """Compute every digest from record ``first`` on anew, so that the chain holds within itself."""
        records = self.records()
        previous = records[first - 2].sha256 if first > 1 else audit.BEGINNING
        statements = []
        for record in records[first - 1 :]:
            record.previous_sha256 = previous
            previous = audit.digest(record)
            statements.append(
                f"UPDATE audit_record SET previous_sha256 = '{record.previous_sha256}', sha256 = '{previous}'"
                f" WHERE number = {record.number}"
            )
        with self.engine.execution_options(write_first=True).begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def verify(self, *options: str | Path) -> tuple[int, dict[str, Any]]:
        """Exit code and findings of ``audit verify`` on this server's folder."""
        done = fleet_server("audit", "verify", "--data", self.folder, "--json", *options)
        assert not done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)


def fleet_server(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """What one command of ``fleet-server`` says and ends with, without a process of its own."""
    given = list(map(str, arguments))
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as complained:
        code = main(given)
    return subprocess.CompletedProcess(given, code, said.getvalue(), complained.getvalue())
