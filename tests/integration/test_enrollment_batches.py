"""Factory batches, board swaps and sticks: a real server and the real ``edge-agent enrol``."""

import json
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from edge_agent.__main__ import main
from edge_agent.enrollment.batch import state
from fleet_protocol.device_folder import fingerprints, new_key, read_key, request_for
from fleet_protocol.enrollment import (
    Application,
    ClaimAnswer,
    ClaimFile,
    ClaimRequest,
    Enrolled,
    claim_name,
    decode,
)
from tests.support.enrolling import enrol, invite, launch, ordered
from tests.support.fleet_broker import Identity, connack_at
from tests.support.fleet_server import ServerProcess, add, batch, deliver, fleet
from tests.support.waiting import wait_until

REFUSED, UNTRUSTED, WAITING = 8, 10, 11


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("fleet") / "data")
    try:
        server.start()
        yield server
    finally:
        server.end()


def make_batch(server: ServerProcess, name: str, folder: Path, count: int = 10) -> Path:
    claim = folder / f"{name}.json"
    options = ("--count", str(count), "--profile", "simulated", "--site", "north", "--out", claim)
    ordered(server, "batch", "create", name, *options)
    return claim


def pending(server: ServerProcess, name: str) -> list[Any]:
    return [each for each in ordered(server, "pending") if each["batch"] == name]


def sql(server: ServerProcess, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(server.data / "fleet.db")) as database, database:
        return database.execute(statement, values).fetchall()


def devices(server: ServerProcess) -> httpx.Client:
    """HTTPS as a device speaks it."""
    context = ssl.create_default_context(cafile=server.endpoints["ca"])
    return httpx.Client(base_url=server.endpoints["device_url"], verify=context, trust_env=False)


class Board:
    """Another board than this machine, which asks by the same protocol."""

    def __init__(self, server: ServerProcess, serial: str) -> None:
        self.server, self.serial, self.key_pem = server, serial, new_key()
        self.key = read_key(self.key_pem)

    def ask(self, file: Path, **altered: str) -> httpx.Response:
        claim = msgspec.json.decode(file.read_bytes(), type=ClaimFile)
        csr = request_for(claim_name(claim.batch), self.key)
        claimed = {"batch": claim.batch, "csr_pem": csr, "statement": state(claim, csr, self.serial)}
        request = msgspec.convert(claimed | altered, ClaimRequest)
        with devices(self.server) as client:
            return client.post("/v1/enrollment/claims", content=msgspec.json.encode(request))

    def accept(self, token: str) -> Enrolled:
        invitation = decode(token)
        request = Application(invitation.secret.hex(), request_for(invitation.device, self.key), self.serial)
        with devices(self.server) as client:
            answer = client.post("/v1/enrollment", content=msgspec.json.encode(request))
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=Enrolled)


def test_a_board_of_a_batch_waits_is_approved_and_has_its_name_and_tags(
    server: ServerProcess, tmp_path: Path
) -> None:
    claim, home = make_batch(server, "first", tmp_path), tmp_path / "gw"
    assert claim.stat().st_mode & 0o777 == 0o600
    asked = enrol("--claim", claim, "--out", home, "--wait", "0")
    assert (asked.returncode, "fleet device approve" in asked.stderr) == (WAITING, True)
    process = launch("--claim", claim, "--out", home, "--wait", "60")
    wait_until(lambda: process.poll() is None and (home / "key.pem").exists(), "it runs")
    process.kill()
    process.communicate()
    (waiting,) = pending(server, "first")
    process = launch("--claim", claim, "--out", home, "--wait", "60")
    ordered(server, "approve", waiting["id"], "--as", "gw-batch", "--tag", "pump", "--tag", "new")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "gw-batch is enrolled" in out
    assert main(["check", "--config", str(home / "agent.toml")]) == 0
    known = server.get("/v1/devices/gw-batch")["device"]
    assert (known["site"], known["profile"], known["tags"]) == ("north", "simulated", ["new", "pump"])
    assert pending(server, "first") == []
    ends = sql(server, "SELECT count(*) FROM certificate WHERE device = 'gw-batch'")
    assert ends == [(1,)]
    assert enrol("--claim", claim, "--out", home).returncode == 0, "it is enrolled, and stays so"
    again = enrol("--claim", claim, "--out", tmp_path / "copy", "--wait", "0")
    assert (again.returncode, "has asked before, with another key" in again.stderr) == (REFUSED, True)


def test_a_rejected_board_is_told_why(server: ServerProcess, tmp_path: Path) -> None:
    claim, home = make_batch(server, "second", tmp_path), tmp_path / "gw"
    enrol("--claim", claim, "--out", home, "--wait", "0")
    (waiting,) = pending(server, "second")
    ordered(server, "reject", waiting["id"], "--reason", "not on the delivery note")
    done = enrol("--claim", claim, "--out", home)
    assert (done.returncode, "not on the delivery note" in done.stderr) == (REFUSED, True)
    assert not (home / "cert.pem").exists()
    done = fleet("device", "approve", waiting["id"], "--as", "gw-no", "--data", server.data)
    assert (done.returncode, "rejected by operator already" in done.stderr) == (1, True)


@pytest.mark.attack
def test_more_boards_than_the_batch_has(server: ServerProcess, tmp_path: Path) -> None:
    claim = make_batch(server, "small", tmp_path, count=2)
    boards = [Board(server, f"board:{number}") for number in range(3)]
    answers = [board.ask(claim) for board in boards]
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert answers[2].json()["code"] == "batch_full"
    assert boards[0].ask(claim).json()["state"] == "waiting", "who has asked may ask again"
    rejected = msgspec.json.decode(answers[0].content, type=ClaimAnswer).id
    ordered(server, "reject", rejected, "--reason", "a copy")
    assert boards[2].ask(claim).status_code == 200, "a rejected one takes no place"


@pytest.mark.parametrize("state", ["closed", "expired"])
def test_a_batch_that_is_over(server: ServerProcess, tmp_path: Path, state: str) -> None:
    claim = make_batch(server, f"over-{state}", tmp_path)
    early = Board(server, "board:early")
    asked = early.ask(claim).json()
    if state == "closed":
        assert ordered(server, "batch", "close", f"over-{state}")["state"] == state
    else:
        sql(server, "UPDATE factory_batch SET expires_ms = 1 WHERE id = 'over-expired'")
    late = Board(server, "board:late").ask(claim)
    assert (late.status_code, late.json()["code"]) == (403, f"batch_{state}")
    ordered(server, "approve", asked["id"], "--as", f"gw-early-{state}")
    assert early.ask(claim).json()["enrolled"]["device"] == f"gw-early-{state}"


def test_an_approval_is_for_one_certificate_and_no_later_one(server: ServerProcess, tmp_path: Path) -> None:
    claim, board = make_batch(server, "once", tmp_path), Board(server, "board:once")
    ordered(server, "approve", board.ask(claim).json()["id"], "--as", "gw-once")
    first = board.ask(claim).json()["enrolled"]["certificate_pem"]
    ordered(server, "batch", "close", "once")
    assert board.ask(claim).json()["enrolled"]["certificate_pem"] == first, "an answer can get lost"
    sql(server, "UPDATE certificate SET not_after_ms = 1 WHERE device = 'gw-once'")
    over = board.ask(claim)
    assert (over.status_code, over.json()["code"]) == (403, "certificate_over")
    assert "edge-agent identity renew" in over.json()["next_step"]
    assert sql(server, "SELECT count(*) FROM certificate WHERE device = 'gw-once'") == [(1,)]


@pytest.mark.attack
def test_a_claim_that_the_batch_did_not_make(server: ServerProcess, tmp_path: Path) -> None:
    claim = make_batch(server, "true", tmp_path)
    forged = json.loads(claim.read_text()) | {"key_pem": new_key().decode()}
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    board = Board(server, "board:forged")
    answer = board.ask(tmp_path / "forged.json")
    assert (answer.status_code, answer.json()["code"]) == (403, "claim_unproved")
    other = request_for(claim_name("true"), read_key(new_key()))
    swapped = board.ask(claim, csr_pem=other)
    assert (swapped.status_code, swapped.json()["code"]) == (403, "claim_unproved"), (
        "a statement is for one key"
    )
    assert board.ask(claim, batch="unheard-of").json()["code"] == "batch_unknown"
    assert board.ask(claim, csr_pem="no request").json()["code"] == "claim_unproved"
    assert pending(server, "true") == []


@pytest.mark.attack
def test_the_key_of_a_batch_opens_no_broker(server: ServerProcess, tmp_path: Path) -> None:
    claim = json.loads(make_batch(server, "curious", tmp_path).read_text())
    (tmp_path / "cert.pem").write_text(claim["certificate_pem"])
    (tmp_path / "key.pem").write_text(claim["key_pem"])
    device = add(server, "gw-probe", tmp_path / "gw-probe")
    assert first_bytes(server, device)[:1] == b"\x20", "the probe gets in with a device's certificate"
    curious = Identity("curious", tmp_path / "cert.pem", tmp_path / "key.pem", device.ca)
    assert first_bytes(server, curious) == b""


def test_a_swapped_board_keeps_the_devices_history_and_the_old_one_is_out(
    server: ServerProcess, tmp_path: Path
) -> None:
    home = tmp_path / "gw-swap"
    assert enrol(invite(server, "gw-swap", "--site", "north"), "--out", home).returncode == 0
    old = Identity("gw-swap", home / "cert.pem", home / "key.pem", home / "ca.pem")
    deliver(server, old, batch(1))
    ordered(server, "tag", "gw-swap", "+pump")
    refused = fleet("device", "invite", "gw-swap", "--data", server.data)
    assert (refused.returncode, "there is a device 'gw-swap' already" in refused.stderr) == (1, True)
    board = Board(server, "board:new")
    enrolled = board.accept(invite(server, "gw-swap", "--replace"))
    (tmp_path / "new.pem").write_text(enrolled.certificate_pem)
    (tmp_path / "new.key").write_bytes(board.key_pem)
    new = Identity("gw-swap", tmp_path / "new.pem", tmp_path / "new.key", home / "ca.pem")
    page = server.get("/v1/devices/gw-swap")["device"]
    assert (page["site"], page["tags"]) == ("north", ["pump"])
    boards = "SELECT serial, until_ms IS NULL FROM hardware_unit WHERE device = 'gw-swap' ORDER BY since_ms"
    units = sql(server, boards)
    assert [bool(stands) for _serial, stands in units] == [False, True]
    assert units[1][0] == "board:new"
    had = "SELECT revoked_reason FROM certificate WHERE device = 'gw-swap' ORDER BY revoked_ms IS NULL"
    assert sql(server, had) == [("superseded",), ("",)]
    before = len(server.get("/v1/devices/gw-swap/readings")["items"])
    assert before > 0, "what the old board has measured is still there"
    server.stop()
    (server.data / "endpoints.json").unlink(missing_ok=True)
    server.start()  # the list of the revoked is made anew
    assert first_bytes(server, new)[:1] == b"\x20"
    assert first_bytes(server, old) == b""


def test_replacing_needs_a_device_that_is_there(server: ServerProcess) -> None:
    done = fleet("device", "invite", "gw-nowhere", "--replace", "--data", server.data)
    assert (done.returncode, "there is no device 'gw-nowhere'" in done.stderr) == (1, True)


def test_a_stick_is_enough(server: ServerProcess, tmp_path: Path) -> None:
    home, request, answer = tmp_path / "gw", tmp_path / "request.json", tmp_path / "answer.json"
    assert enrol("--request", request, "--out", home).returncode == REFUSED, "it has to have a name"
    assert enrol("--request", request, "--device", "gw-stick", "--out", home).returncode == 0
    told = ordered(server, "answer", request, "--out", answer, "--profile", "simulated", "--site", "north")
    wrong = enrol("--answer", answer, "--out", home, "--ca-fingerprint", "00" * 32)
    assert (wrong.returncode, (home / "cert.pem").exists()) == (UNTRUSTED, False)
    unasked = enrol("--answer", answer, "--out", home)
    assert (unasked.returncode, (home / "cert.pem").exists()) == (UNTRUSTED, False), "nobody compared"
    (root,) = fingerprints(Path(server.endpoints["ca"]).read_text())
    elsewhere = enrol("--answer", answer, "--out", tmp_path / "other", "--ca-fingerprint", root)
    assert (elsewhere.returncode, "not for this device's key" in elsewhere.stderr) == (REFUSED, True)
    assert told["ca_sha256"] == [root]
    colons = ":".join(root[n : n + 2] for n in range(0, 64, 2)).upper()
    taken = enrol("--answer", answer, "--out", home, "--ca-fingerprint", colons)
    assert (taken.returncode, root in taken.stderr) == (0, True)
    assert main(["check", "--config", str(home / "agent.toml")]) == 0
    identity = Identity("gw-stick", home / "cert.pem", home / "key.pem", home / "ca.pem")
    deliver(server, identity, batch(1))


@pytest.mark.attack
def test_an_answer_that_was_altered_on_the_stick(server: ServerProcess, tmp_path: Path) -> None:
    home, request, answer = tmp_path / "gw", tmp_path / "request.json", tmp_path / "answer.json"
    enrol("--request", request, "--device", "gw-tamper", "--out", home)
    ordered(server, "answer", request, "--out", answer)
    whole = json.loads(answer.read_text())
    whole["enrolled"]["device"] = "gw-other"
    answer.write_text(json.dumps(whole))
    (root,) = fingerprints(Path(server.endpoints["ca"]).read_text())
    done = enrol("--answer", answer, "--out", home, "--ca-fingerprint", root)
    assert (done.returncode, "is for ['gw-tamper'], not for 'gw-other'" in done.stderr) == (REFUSED, True)
    answer.write_text("no answer")
    assert enrol("--answer", answer, "--out", home, "--ca-fingerprint", root).returncode == REFUSED
    assert sorted(path.name for path in home.iterdir()) == ["key.pem"]


def first_bytes(server: ServerProcess, identity: Identity) -> bytes:
    """What the broker answers to a CONNECT with this certificate; nothing where it hangs up."""
    return connack_at(server.endpoints["mqtt_port"], identity.context())
