"""A whole server through the life of its authority: a key in a security module, revocation, another root."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from sqlmodel import Session, col, select

from fleet_server.__main__ import main
from fleet_server.clock import wall_ms
from fleet_server.config import load
from fleet_server.database.engine import open_engine
from fleet_server.database.models import Certificate
from tests.support.fleet_broker import Identity, connack_at
from tests.support.fleet_server import ServerProcess, add, batch, deliver
from tests.support.security_module import SecurityModule


@pytest.fixture
def server(tmp_path: Path, security_module: SecurityModule) -> Iterator[ServerProcess]:
    """A server that is yet to start; its issuing key is in a security module."""
    uri = str(security_module.make_key(tmp_path.name))
    assert main(["authority", "init", "--data", str(tmp_path / "data"), "--issuing-key", uri]) == 0
    server = ServerProcess(tmp_path / "data", "--certificate-days", "7")
    yield server
    server.end()


def revoke(server: ServerProcess, device: str) -> None:
    engine = open_engine(load(server.data).database_url)
    with Session(engine) as session:
        for row in session.exec(select(Certificate).where(col(Certificate.device) == device)):
            row.revoked_ms, row.revoked_reason = wall_ms(), "keyCompromise"
        session.commit()
    engine.dispose()


@pytest.mark.slow
def test_devices_come_through_a_revocation_and_an_exchange_of_the_root(
    server: ServerProcess, security_module: SecurityModule, tmp_path: Path
) -> None:
    server.start()
    early, thief = (add(server, name, tmp_path / name) for name in ("gw-1", "gw-2"))
    deliver(server, early, batch(1))
    ends = x509.load_pem_x509_certificate(early.certificate.read_bytes()).not_valid_after_utc
    assert timedelta(days=6) < ends - datetime.now(UTC) <= timedelta(days=7)
    assert server.codes() == set()
    assert main(["authority", "rollover", "begin", "--data", str(server.data)]) == 1
    server.stop()

    revoke(server, "gw-2")
    uri = str(security_module.make_key("journey-2"))
    assert main(["authority", "rollover", "begin", "--data", str(server.data), "--issuing-key", uri]) == 0
    server.start()
    late = add(server, "gw-3", tmp_path / "gw-3")
    deliver(server, early, batch(2))
    deliver(server, late, batch(1))
    assert connack_at(server.endpoints["mqtt_port"], thief.context()) == b""
    server.stop()

    assert main(["authority", "rollover", "finish", "--data", str(server.data)]) == 1
    assert main(["authority", "rollover", "finish", "--data", str(server.data), "--force"]) == 0
    server.start()
    deliver(server, late, batch(2))
    stranger = Identity("gw-1", early.certificate, early.key, late.ca)
    assert connack_at(server.endpoints["mqtt_port"], stranger.context()) == b""


def test_a_server_whose_security_module_is_away_says_so_and_does_not_start(
    server: ServerProcess, security_module: SecurityModule, tmp_path: Path
) -> None:
    pin = security_module.pin_file
    away = shutil.move(pin, tmp_path / "pin")
    try:
        process = server.launch()
        said = server.complaint()
    finally:
        shutil.move(away, pin)
    assert process.returncode == 1
    assert said.startswith("fleet-server: the PIN of token 'fleet' cannot be read")
    assert said.count("\n") == 1
