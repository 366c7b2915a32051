"""Revoking over the whole server: who is put out is gone within seconds, and nobody else notices."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlmodel import Session, select

from fleet_protocol.topics import Channel, topic
from fleet_server.database.engine import open_engine
from fleet_server.database.models import Certificate
from tests.support.fleet_broker import ACCEPTED, connected
from tests.support.fleet_server import ServerProcess, add, batch, deliver
from tests.support.probing import is_let_in
from tests.support.waiting import wait_until

CUT_S = 3.0
"""From the word to the end of the connection."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("fleet") / "data")
    server.start()
    yield server
    server.end()


def say(server: ServerProcess, device: str, action: str, reason: str = "test") -> httpx.Response:
    with server.client() as client:
        return client.post(f"/v1/devices/{device}/{action}", json={"reason": reason})


def codes(server: ServerProcess, device: str) -> set[str]:
    page = server.get(f"/v1/devices/{device}")
    return {item["code"] for item in page["device"]["health"]}


def port(server: ServerProcess) -> int:
    return int(server.endpoints["mqtt_port"])


def enforced(server: ServerProcess, device: str) -> bool:
    """Whether the broker obeys whatever was said of the device."""
    engine = open_engine(f"sqlite:///{server.data / 'fleet.db'}")
    try:
        with Session(engine) as session:
            rows = session.exec(select(Certificate).where(Certificate.device == device)).all()
        return all(row.enforced_ms is not None for row in rows if row.revoked_reason)
    finally:
        engine.dispose()


def settled(server: ServerProcess, device: str) -> None:
    wait_until(lambda: enforced(server, device), f"{device} is settled")


def test_a_stolen_certificate_is_cut_while_it_is_in_use_and_cannot_return(
    server: ServerProcess, tmp_path: Path
) -> None:
    stolen, other = (add(server, name, tmp_path / name) for name in ("gw-stolen", "gw-other"))
    with (
        connected(port(server), other) as bystander,
        connected(port(server), stolen, will=topic(stolen.name, Channel.STATUS)) as thief,
    ):
        assert thief.publish(topic(stolen.name, Channel.TELEMETRY), batch(1)) == ACCEPTED
        began = time.monotonic()
        answer = say(server, stolen.name, "revoke", "stolen from the cabinet")
        assert answer.status_code == 200
        assert len(answer.json()["serials"]) == 1
        assert thief.gone.wait(CUT_S), "it is still connected"
        print(f"cut after {time.monotonic() - began:.3f} s")
        assert not is_let_in(port(server), stolen)
        assert bystander.publish(topic(other.name, Channel.TELEMETRY), batch(1)) == ACCEPTED
        assert not bystander.gone.is_set()
    settled(server, stolen.name)
    assert deliver(server, other, batch(2)).marks
