"""The sender: windows, order, repetition, acknowledgements; over a real store, with a session in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.sender import Limits, Sender
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import Ack, Events, Gap, Mark, Stream, Telemetry, decode
from fleet_protocol.topics import Channel
from tests.support.drafts import HandClock, event, telemetry

MIB = 2**20


class Session:
    """A session that only remembers."""

    def __init__(self) -> None:
        self.sent: list[Telemetry | Events | Gap] = []
        self.more = asyncio.Event()

    async def send(self, channel: Channel, payload: bytes, mono_ms: int) -> None:
        message = decode(channel, payload)
        assert isinstance(message, Telemetry | Events | Gap)
        self.sent.append(message)
        self.more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.more.clear()
                await self.more.wait()

    @property
    def numbers(self) -> list[int]:
        return [message.seq for message in self.sent]


class Bench:
    """A store and a sender over one session."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.clock = HandClock()
        self.health = HealthBoard(self.clock)
        self.store = Store(folder, MIB, self.clock, self.health)
        self.sender = Sender(self.store, self.clock, self.health, limits)

    async def acknowledge(self, seq: int, stream: Stream = Stream.TELEMETRY) -> None:
        await self.sender._apply([Mark(self.store.epoch, stream, seq)])

    @property
    def codes(self) -> set[str]:
        return {report.code for report in self.health.reports()}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        session = Session()
        running = asyncio.ensure_future(self.sender.run(session))
        try:
            yield session
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def ruin(folder: Path) -> None:
    """The medium gives back garbage in place of the spool and its log."""
    for name in ("spool.db", "spool.db-wal"):
        file = folder / name
        file.write_bytes(b"\xa5" * file.stat().st_size)


def run(folder: Path, limits: Limits, scenario: object) -> None:
    async def main() -> None:
        bench = Bench(folder, limits)
        await scenario(bench)  # type: ignore[operator]
        await bench.store.close()

    asyncio.run(main())


def test_events_go_first_and_no_more_than_a_window_is_under_way(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([*(telemetry() for _ in range(7)), event(), event()])
        async with bench.session() as session:
            await session.until(2 + 4)
            assert [type(message) for message in session.sent[:2]] == [Events, Events]
            assert session.numbers == [1, 2, 1, 2, 3, 4]
            await bench.acknowledge(2)
            await session.until(2 + 6)
            assert session.numbers[6:] == [5, 6]

    run(tmp_path, Limits(window=4), scenario)


def test_acknowledgements_that_come_together_are_one_transaction(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([*(telemetry() for _ in range(5)), event()])
        for seq in (1, 2, 4):
            bench.sender.hear(Ack(marks=[Mark(bench.store.epoch, Stream.TELEMETRY, seq)]))
        bench.sender.hear(Ack(marks=[Mark(bench.store.epoch, Stream.EVENT, 1)]))
        changes = bench.store._spool._db.total_changes  # type: ignore[union-attr]
        bench.store.changed.clear()
        applying = asyncio.ensure_future(bench.sender.acknowledge())
        await asyncio.wait_for(bench.store.changed.wait(), 10)
        applying.cancel()
        assert (await bench.store.report()).batches == 1
        # Five rows and one counter a stream: each mark was applied once.
        assert bench.store._spool._db.total_changes - changes == 5 + 2  # type: ignore[union-attr]

    run(tmp_path, Limits(), scenario)


def test_the_window_is_bounded_in_bytes(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([telemetry(2000) for _ in range(4)])
        async with bench.session() as session:
            await session.until(1)
            await bench.acknowledge(1)
            await session.until(2)
            assert session.numbers == [1, 2]

    run(tmp_path, Limits(window=1, window_bytes=1), scenario)


def test_silence_is_told_and_sending_starts_again_from_the_mark(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([telemetry() for _ in range(3)])
        async with bench.session() as session:
            await session.until(3)
            await bench.acknowledge(1)
            await session.until(5)
            assert session.numbers == [1, 2, 3, 2, 3]
            assert "link.unacknowledged" in bench.codes
            await bench.acknowledge(3)
            assert "link.unacknowledged" not in bench.codes
            assert (await bench.store.report()).batches == 0

    run(tmp_path, Limits(ack_timeout_s=0.2), scenario)


def test_a_new_session_starts_from_the_mark(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([telemetry() for _ in range(3)])
        async with bench.session() as session:
            await session.until(3)
            await bench.acknowledge(1)
        async with bench.session() as session:
            await session.until(2)
            assert session.numbers == [2, 3]

    run(tmp_path, Limits(), scenario)


def test_what_is_appended_later_follows_at_once(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.open()
        async with bench.session() as session:
            for count in range(1, 4):
                await bench.store.append([telemetry()])
                await session.until(count)
            assert session.numbers == [1, 2, 3]

    run(tmp_path, Limits(), scenario)


def test_a_server_that_went_back_to_a_backup_is_told_what_is_gone(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([telemetry() for _ in range(4)])
        async with bench.session() as session:
            await session.until(4)
            await bench.acknowledge(4)
            await bench.store.append([telemetry()])
            await session.until(5)
            await bench.acknowledge(1)
            await session.until(6)
            gap = session.sent[5]
            assert isinstance(gap, Gap)
            assert (gap.first, gap.seq, gap.records) == (2, 4, 0)
            await session.until(7)
            assert session.numbers[6] == 5

    run(tmp_path, Limits(ack_timeout_s=0.2), scenario)


def test_a_corrupt_spool_does_not_stop_the_sender(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.store.append([telemetry()])
        async with bench.session() as session:
            await session.until(1)
            before = bench.store.epoch
            ruin(tmp_path)
            bench.store._spool._db.execute("PRAGMA cache_size = 0")  # type: ignore[union-attr]
            for _ in range(3):
                await bench.store.append([telemetry()])
            assert bench.store.epoch != before
            assert "spool.quarantined" in bench.codes
            await session.until(4)
            assert session.sent[-1].epoch == bench.store.epoch

    run(tmp_path, Limits(), scenario)
    assert list(tmp_path.glob("spool.db.quarantined-*"))
