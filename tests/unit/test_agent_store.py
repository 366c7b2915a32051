"""The store on a bad medium: full, corrupt, read-only; nothing ends the agent, every loss is told."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edge_agent.errors import SpoolCorrupt
from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.spool import Position, Spool
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import Events, Gap, Mark, Stream, Telemetry, decode
from tests.support.disk import fill
from tests.support.drafts import HandClock, event, telemetry

MIB = 2**20


def run(folder: Path, scenario: Callable[[Store, HealthBoard], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = HandClock()
        health = HealthBoard(clock)
        store = Store(folder, 64 * MIB, clock, health)
        await store.open()
        await scenario(store, health)
        await store.close()

    asyncio.run(main())


def codes(health: HealthBoard) -> set[str]:
    return {report.code for report in health.reports()}


async def stored(store: Store, stream: Stream = Stream.TELEMETRY) -> list[Telemetry | Events | Gap]:
    messages = []
    for row in await store.rows(stream, Position(), 10_000):
        message = decode(stream.channel, row.payload)
        assert isinstance(message, Telemetry | Events | Gap)
        messages.append(message)
    return messages


def test_a_full_disk_costs_readings_and_tells_how_many(small_disk: Path) -> None:
    async def scenario(store: Store, health: HealthBoard) -> None:
        await store.append([telemetry(10)])
        filler = small_disk / "filler"
        fill(filler)
        taken = 10
        while "spool.disk_full" not in codes(health):
            await store.append([telemetry(500), event()])
            taken += 500
        await store.append([telemetry(7)])
        taken += 7
        filler.unlink()
        await store.append([telemetry(1)])
        taken += 1
        assert "spool.disk_full" not in codes(health)
        messages = await stored(store)
        assert [message.first for message in messages[1:]] == [message.seq + 1 for message in messages[:-1]]
        (gap,) = [message for message in messages if isinstance(message, Gap)]
        assert gap.reason == "disk full"
        kept = sum(len(message.readings) for message in messages if isinstance(message, Telemetry))
        assert kept + gap.records == taken
        assert isinstance((await stored(store, Stream.EVENT))[-1], Gap)
        assert (await store.report()).dropped_records == gap.records + 1

    run(small_disk, scenario)


def test_a_disk_that_is_full_at_the_start_is_waited_out(small_disk: Path) -> None:
    filler = small_disk / "filler"
    fill(filler)

    async def scenario(store: Store, health: HealthBoard) -> None:
        assert "spool.disk_full" in codes(health)
        await store.append([telemetry(3)])
        filler.unlink()
        await store.append([telemetry(1)])
        gap, batch = await stored(store)
        assert isinstance(gap, Gap)
        assert (gap.seq, gap.records, batch.seq) == (1, 3, 2)
        assert isinstance(batch, Telemetry)
        assert batch.metrics
        assert "spool.disk_full" not in codes(health)

    run(small_disk, scenario)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_corrupt_file_is_set_aside_and_stays_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(content)
    (tmp_path / "spool.db-wal").write_bytes(b"log" * 1000)

    async def scenario(store: Store, health: HealthBoard) -> None:
        assert "spool.quarantined" in codes(health)
        await store.append([telemetry()])
        assert len(await stored(store)) == 1

    run(tmp_path, scenario)
    aside = [file for file in tmp_path.glob("spool.db.quarantined-*") if not file.name.endswith("-wal")]
    assert [file.read_bytes() for file in aside] == [content]

    async def next_start(store: Store, health: HealthBoard) -> None:
        assert "spool.quarantined" in codes(health)
        assert len(await stored(store)) == 1

    run(tmp_path, next_start)


def test_a_card_that_dies_again_and_again_does_not_fill_itself(tmp_path: Path) -> None:
    async def scenario(_store: Store, _health: HealthBoard) -> None:
        pass

    for number in range(6):
        (tmp_path / "spool.db").write_bytes(b"garbage %d" % number * 1000)
        run(tmp_path, scenario)
        for file in (tmp_path / "spool.db", *tmp_path.glob("spool.db-*")):
            file.unlink(missing_ok=True)
    assert len(list(tmp_path.glob("spool.db.quarantined-*"))) == 3


def test_quota_is_told_and_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        clock = HandClock()
        health = HealthBoard(clock)
        store = Store(tmp_path, MIB, clock, health)
        while "spool.dropping" not in codes(health):
            await store.append([telemetry(2000)])
        last = (await stored(store))[-1].seq
        assert await store.acknowledge([Mark(store.epoch, Stream.TELEMETRY, last)]) == []
        assert "spool.dropping" not in codes(health)
        await store.close()

    asyncio.run(main())


def test_a_cancelled_append_is_stored_all_the_same(tmp_path: Path) -> None:
    async def scenario(store: Store, _health: HealthBoard) -> None:
        # The disk is busy, so that the append still waits when its caller is cancelled.
        disk = threading.Event()
        store._thread.submit(disk.wait)
        appending = asyncio.ensure_future(store.append([telemetry()]))
        await asyncio.sleep(0)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        disk.set()
        assert len(await stored(store)) == 1

    run(tmp_path, scenario)


def test_a_medium_on_which_every_new_spool_is_corrupt_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*_arguments: object) -> None:
        raise SpoolCorrupt("database disk image is malformed")

    monkeypatch.setattr(Spool, "_prepare", corrupt)

    async def scenario(store: Store, health: HealthBoard) -> None:
        await store.append([telemetry(10)])
        assert {"spool.quarantined", "spool.disk_full"} <= codes(health)
        monkeypatch.undo()
        await store.append([telemetry(5)])
        gap, batch = await stored(store)
        assert isinstance(gap, Gap)
        assert gap.records == 10
        assert isinstance(batch, Telemetry)

    run(tmp_path, scenario)
