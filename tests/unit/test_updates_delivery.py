"""Looks that mind the line: budgets, windows, and deltas from a real HTTPS server, good and bad."""

import datetime as dt
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from edge_agent.clock import BUILD_MS
from edge_agent.updates import canceling, transfer
from edge_agent.updates import ledger as ledgers
from edge_agent.updates.ledger import Budget, Ledger, Now
from edge_agent.updates.records import Entry, Journal
from edge_agent.updates.spoken import Accepted, Held, Noted, Progress, Said, Unreachable
from fleet_protocol.delivery import Delivery
from fleet_protocol.targets import Kind, Target
from fleet_protocol.update_states import UpdateState
from fleet_signing import patches
from fleet_signing.artifacts import Artifact
from tests.support.authority import TestAuthority
from tests.support.update_server import UpdateServer
from tests.support.updating import DAY_MS, Yard, accepted, model_artifact, refused

OLD: Artifact = model_artifact(1)
NEW: Artifact = model_artifact(2)
TARGET: Target = NEW.target
NOW_MS = BUILD_MS + 30 * DAY_MS
DELTA = f"image/deltas/{OLD.target.sha256}/{TARGET.sha256}.zst"


@pytest.fixture
def server(authority: TestAuthority) -> Iterator[UpdateServer]:
    with UpdateServer(authority.issue("updates"), {}) as server:
        yield server


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority, server: UpdateServer) -> Yard:
    yard = Yard(tmp_path / "gw-7", authority, server=server)
    server.files = yard.repositories.files
    yard.order(NEW)
    return yard


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(transfer, "_LONGEST_WAIT_S", 0.01)


def downloads(yard: Yard) -> Path:
    return yard.updates / ledgers.DOWNLOADS


def ledger(yard: Yard) -> Ledger:
    return ledgers.load(ledgers.place_of(downloads(yard), TARGET.sha256))


def held(said: list[Said]) -> list[Held]:
    return [each for each in said if isinstance(each, Held)]


def names(yard: Yard) -> set[str]:
    """What lies in the folder of downloads, without the digest."""
    return {file.name.removeprefix(TARGET.sha256) for file in downloads(yard).iterdir()}


def with_old(yard: Yard, delta: bytes | None) -> dict[str, Any]:
    """What a look is asked on a device that has the first release, while the server has ``delta``."""
    folder = downloads(yard)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OLD.target.sha256).write_bytes(OLD.content)
    if delta is not None:
        yard.repositories.files[DELTA] = delta
    return {"bases": [(Kind.MODEL, "autoencoder", OLD.target.sha256)], "delta_mib": 32}


def test_every_byte_that_came_is_in_the_ledger(yard: Yard, server: UpdateServer) -> None:
    server.cuts.extend([9_000, 0])
    assert accepted(yard.look()) == [TARGET.path]
    assert ledger(yard).fetched == TARGET.length
    assert ledger(yard).saved == 0


def test_a_line_that_burns_data_is_given_up_and_tried_again_when_the_budget_renews(
    yard: Yard, server: UpdateServer
) -> None:
    budget = Budget(times=2.0, spare=0, period_s=7 * 86_400.0)
    server.forgets = True
    server.cuts.extend([TARGET.length - 100] * transfer.ATTEMPTS)
    (wait,) = held(yard.look(budget=budget))
    assert wait.spent
    assert "given up for now" in wait.detail
    assert wait.again_s == pytest.approx(7 * 86_400, abs=600)
    assert 2 * TARGET.length <= ledger(yard).fetched <= 2 * TARGET.length + 64 * 1024
    server.cuts.clear()
    server.asked.clear()
    assert held(yard.look(budget=budget))
    assert server.ranges(".tar") == [], "not a byte more is asked for"
    of_an_older_boot = msgspec.structs.replace(ledger(yard), began=ledgers.Now(NOW_MS, "b", 0))
    ledgers.save(ledgers.place_of(downloads(yard), TARGET.sha256), of_an_older_boot)
    assert accepted(yard.look(budget=budget, now_ms=NOW_MS + 8 * DAY_MS)) == [TARGET.path]


def test_time_is_a_budget_too(yard: Yard) -> None:
    ledgers.save(
        ledgers.place_of(downloads(yard), TARGET.sha256),
        Ledger(period_seconds=5000.0, began=ledgers.Now(NOW_MS, "b", 0)),
    )
    (wait,) = held(yard.look(budget=Budget(seconds=5000.0)))
    assert wait.spent


def test_a_line_that_only_trickles_is_given_up(
    yard: Yard, server: UpdateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.pieces = (10, 0.05)
    said = yard.look()
    assert any(isinstance(each, Unreachable) and "too slowly" in each.detail for each in said)
    assert 0 < ledger(yard).fetched < 64 * 1024


@pytest.mark.parametrize("whose", ["the device", "the operator"])
def test_outside_its_window_nothing_is_asked_for(yard: Yard, server: UpdateServer, whose: str) -> None:
    clock = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC)
    opens = clock + dt.timedelta(hours=2)
    window = f"{opens:%H:%M}-{opens + dt.timedelta(hours=1):%H:%M}"
    terms = Delivery(windows=(window,))
    if whose == "the operator":
        yard.repositories.direct(yard.device, TARGET, terms={TARGET.path: terms})
        said = yard.look()
    else:
        said = yard.look(terms=terms)
    (wait,) = held(said)
    assert window in wait.detail
    assert wait.again_s is not None
    assert 7000 <= wait.again_s <= 7200
    assert ledger(yard).held == wait.detail
    assert server.ranges(".tar") == []
    inside = yard.look(terms=terms, now_ms=NOW_MS + 7_260_000)
    assert accepted(inside) == [TARGET.path]
    assert ledger(yard).held == ""


def test_windows_are_hours_of_the_sites_own_time_zone(yard: Yard) -> None:
    clock = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.timezone(dt.timedelta(hours=9)))
    terms = Delivery(windows=(f"{clock:%H}:00-{clock:%H}:59",))
    assert held(yard.look(terms=terms))
    assert accepted(yard.look(terms=terms, time_zone="Asia/Tokyo"))


def test_without_a_clock_that_can_be_believed_a_window_stays_shut(yard: Yard, server: UpdateServer) -> None:
    terms = Delivery(windows=("00:00-00:00",))
    (wait,) = held(yard.look(terms=terms, now_ms=0))
    assert "clock cannot be believed" in wait.detail
    assert server.ranges(".tar") == []


def test_a_stick_is_bound_by_nothing(yard: Yard, tmp_path: Path) -> None:
    terms = Delivery(max_kib_per_s=1, windows=("00:00-00:01",))
    stick = yard.bundle(tmp_path / "stick.tar")
    said = yard.look(bundle=str(stick), terms=terms, now_ms=0, budget=Budget(times=1.0, seconds=1.0))
    assert accepted(said) == [TARGET.path]


def test_it_is_read_no_faster_than_the_stricter_of_both_allows(yard: Yard) -> None:
    terms = Delivery(max_kib_per_s=400)
    yard.repositories.direct(yard.device, TARGET, terms={TARGET.path: Delivery(max_kib_per_s=20)})
    began = time.monotonic()
    assert accepted(yard.look(terms=terms))
    assert time.monotonic() - began >= 0.8 * TARGET.length / (20 * 1024)


def test_what_was_canceled_on_site_is_not_asked_for(yard: Yard, server: UpdateServer) -> None:
    entry = Entry(target=TARGET, state=UpdateState.DOWNLOADING, since_wall_ms=0)
    journal = Journal(entries=(entry,))
    assert canceling.cancel(downloads(yard), journal) == [TARGET]
    assert canceling.cancel(downloads(yard), journal) == []
    (wait,) = held(yard.look())
    assert "canceled" in wait.detail
    assert server.ranges(".tar") == []
    assert canceling.resume(downloads(yard), journal) == [TARGET]
    assert accepted(yard.look()) == [TARGET.path]


def test_a_delta_brings_the_same_bytes_for_fewer(yard: Yard, server: UpdateServer) -> None:
    delta = patches.make(OLD.content, NEW.content)
    said = yard.look(**with_old(yard, delta))
    (took,) = [each for each in said if isinstance(each, Accepted)]
    assert hashlib.sha256(Path(took.file).read_bytes()).hexdigest() == TARGET.sha256
    assert server.ranges(".tar") == []
    assert ledger(yard).fetched == len(delta)
    assert ledger(yard).saved == TARGET.length - len(delta)
    assert any(isinstance(each, Progress) and each.size == len(delta) for each in said)
    assert names(yard) == {"", ".ledger", OLD.target.sha256}


def test_a_delta_is_gone_on_with_where_it_was_cut(yard: Yard, server: UpdateServer) -> None:
    # It makes no use of the old one, so that it is long.
    delta = zstandard.ZstdCompressor().compress(NEW.content)
    server.cut_from = 10_000
    asked = with_old(yard, delta)
    server.cuts.extend([200, 100] + [0] * transfer.ATTEMPTS)
    assert any(isinstance(each, Unreachable) for each in yard.look(**asked))
    server.cuts.clear()
    server.asked.clear()
    assert accepted(yard.look(**asked)) == [TARGET.path]
    assert server.ranges(".zst") == ["bytes=300-"]
    assert ledger(yard).fetched == len(delta)


OTHER = model_artifact(3)


def _spoiled() -> bytes:
    delta = bytearray(patches.make(OLD.content, NEW.content))
    delta[len(delta) // 2] ^= 0xFF
    return bytes(delta)


def _endless() -> bytes:
    """A few bytes that claim to be the artifact and make 256 MiB."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))


@pytest.mark.attack
@pytest.mark.parametrize(
    "delta",
    [
        _spoiled,
        _endless,
        lambda: zstandard.ZstdCompressor().compress(bytes(1 << 28)),
        lambda: patches.make(OLD.content, OTHER.content),
        lambda: patches.make(OLD.content[::-1], NEW.content),
        lambda: patches.make(OLD.content, NEW.content)[:-20],
        lambda: b"no delta at all",
    ],
    ids=["spoiled", "endless", "huge", "of another one", "to another one", "cut short", "no delta"],
)
def test_a_bad_delta_is_told_and_the_whole_artifact_is_fetched(
    yard: Yard, server: UpdateServer, delta: Any
) -> None:
    asked = with_old(yard, delta())
    said = yard.look(**asked)
    assert accepted(said) == [TARGET.path]
    assert refused(said) == [], "nobody vouched for the delta, so that it is no attack on the artifact"
    assert any(isinstance(each, Noted) and "no delta" in each.detail for each in said)
    assert server.ranges(".tar") == [""]
    assert ledger(yard).no_delta == (OLD.target.sha256,)
    (downloads(yard) / TARGET.sha256).unlink()
    server.asked.clear()
    assert accepted(yard.look(**asked)) == [TARGET.path]
    assert server.ranges(".zst") == [], "it is not tried twice"


@pytest.mark.parametrize("status", [404, 503])
def test_where_the_server_has_no_delta_the_whole_artifact_is_fetched(
    yard: Yard, server: UpdateServer, status: int
) -> None:
    server.status[DELTA] = status
    assert accepted(yard.look(**with_old(yard, None))) == [TARGET.path]


def test_a_delta_that_saves_too_little_is_not_read(yard: Yard, server: UpdateServer) -> None:
    assert accepted(yard.look(**with_old(yard, bytes(TARGET.length - 100)))) == [TARGET.path]
    assert ledger(yard).fetched == TARGET.length


def test_a_delta_that_takes_too_much_memory_is_not_asked_for(yard: Yard, server: UpdateServer) -> None:
    delta = patches.make(OLD.content, NEW.content)
    assert accepted(yard.look(**with_old(yard, delta) | {"delta_mib": 0})) == [TARGET.path]
    assert server.ranges(".zst") == []


def test_without_the_library_there_are_no_deltas(
    yard: Yard, server: UpdateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = with_old(yard, patches.make(OLD.content, NEW.content))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert accepted(yard.look(**asked)) == [TARGET.path]
    assert server.ranges(".zst") == []


def test_the_budget_of_a_board_that_never_knows_the_time_renews_within_a_boot() -> None:
    budget = Budget(period_s=100.0)
    spent = ledgers.spend(ledgers.renew(Ledger(), budget, Now(0, "first", 5)), 900, 1.0)
    spent = ledgers.renew(spent, budget, Now(0, "second", 7))
    assert spent.period_fetched == 900, "a restart alone renews nothing"
    assert ledgers.renews_in_s(spent, budget, Now(0, "second", 60_007)) == 40.0
    assert ledgers.renew(spent, budget, Now(0, "second", 100_007)).period_fetched == 0
