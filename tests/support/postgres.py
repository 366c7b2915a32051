"""A real PostgreSQL of our own: made in a temporary folder, on a Unix socket and a free port."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from tests.support.waiting import free_port, wait_until

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []


class PostgresServer:
    """A running server; ``url`` names a database on it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.template = "template1"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self.folder / "data", "-k", self.folder, "-p", str(self.port),
                 "-c", "listen_addresses="],
                stdout=log, stderr=log, cwd=self.folder, **_as_postgres(),
            )  # fmt: skip
        wait_until(self._accepts, "PostgreSQL accepts")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop by its own process id; SIGINT is PostgreSQL's fast shutdown, SIGQUIT its crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def new_database(self, template: str = "template1") -> str:
        """The name of a new database that is a copy of ``template``."""
        name = f"t{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return name

    def _accepts(self) -> bool:
        asked = [program("pg_isready"), "-q", "-h", self.folder, "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0


def program(name: str) -> Path:
    return _PROGRAMS[-1] / name


def is_installed() -> bool:
    return bool(_PROGRAMS)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A new, empty server, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        subprocess.run(
            [program("initdb"), "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **_as_postgres(),
        )  # fmt: skip
        server = PostgresServer(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            # Nothing is kept, so nothing is written first: that takes too long on a busy disk.
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder)


def _as_postgres() -> dict:
    """PostgreSQL refuses to run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
