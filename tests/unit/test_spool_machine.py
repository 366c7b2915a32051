"""Random lives of a spool: whatever happens, every number is covered once and nothing leaves early."""

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.telemetry.batcher import Batcher
from edge_agent.telemetry.spool import Loss, Position, Spool
from fleet_protocol.messages import Gap, Mark, Stream, decode
from tests.support.drafts import FLOW, PRESSURE, HandClock, event, telemetry

MIB = 2**20
streams = st.sampled_from(Stream)


class SpoolMachine(RuleBasedStateMachine):
    """``assigned`` and ``acknowledged`` are what the outside world has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.file = self.folder / "spool.db"
        self.assigned: dict[tuple[str, Stream], int] = defaultdict(int)
        self.acknowledged: dict[tuple[str, Stream], int] = defaultdict(int)
        self.records: dict[tuple[str, Stream], int] = defaultdict(int)

    @initialize()
    def begin(self) -> None:
        self.batcher = Batcher(HandClock())
        self.spool = Spool(self.file, MIB)
        self.epochs = [self.spool.epoch]

    @rule(count=st.integers(1, 12), size=st.integers(1, 1500), metric=st.sampled_from([FLOW, PRESSURE]))
    def append_telemetry(self, count: int, size: int, metric: object) -> None:
        drafts = [telemetry(size, metric=metric, batcher=self.batcher) for _ in range(count)]  # type: ignore[arg-type]
        self.spool.append(drafts, {})
        self._gave(Stream.TELEMETRY, count)

    @rule(count=st.integers(1, 300))
    def append_events(self, count: int) -> None:
        self.spool.append([event("x" * 200, batcher=self.batcher) for _ in range(count)], {})
        self._gave(Stream.EVENT, count)

    @rule(stream=streams, records=st.integers(1, 1000))
    def tell_loss(self, stream: Stream, records: int) -> None:
        self.spool.append([], {stream: Loss(records, 1, 2, "disk full")})
        self._gave(stream, 1)

    @rule(stream=streams, which=st.integers(0, 5), share=st.floats(0, 1))
    def acknowledge(self, stream: Stream, which: int, share: float) -> None:
        epoch = self.epochs[which % len(self.epochs)]
        seq = int(self.assigned[epoch, stream] * share)
        assert self.spool.acknowledge([Mark(epoch, stream, seq)]) == []
        self.acknowledged[epoch, stream] = max(self.acknowledged[epoch, stream], seq)

    @rule(stream=streams, beyond=st.integers(1, 5))
    def acknowledge_too_much(self, stream: Stream, beyond: int) -> None:
        mark = Mark(self.spool.epoch, stream, self.assigned[self.spool.epoch, stream] + beyond)
        assert self.spool.acknowledge([mark]) == [mark]

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self._reopen(self.file)

    @rule()
    def kill(self) -> None:
        """What lies on the disk is copied as it is, and a new process finds it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for file in self.folder.glob("spool.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        self.spool.close()
        for file in self.folder.glob("spool.db*"):
            file.unlink()
        for file in folder.iterdir():
            file.rename(self.folder / file.name)
        self._reopen(self.file)

    @precondition(lambda self: hasattr(self, "spool"))
    @invariant()
    def every_number_is_covered_once(self) -> None:
        for stream in Stream:
            covered: dict[str, list[int]] = defaultdict(list)
            order = []
            for row in self.spool.rows(stream, Position(), 1_000_000):
                batch = decode(stream.channel, row.payload)
                covered[batch.epoch] += range(batch.first, batch.seq + 1)  # type: ignore[union-attr]
                order.append(self.epochs.index(row.epoch))
                if isinstance(batch, Gap) and self._has_metrics(row.epoch):
                    assert batch.metrics
            assert order == sorted(order)
            for epoch in self.epochs:
                acknowledged, assigned = self.acknowledged[epoch, stream], self.assigned[epoch, stream]
                waiting = set(range(acknowledged + 1, assigned + 1))
                numbers = covered[epoch]
                assert len(numbers) == len(set(numbers))
                # A gap may reach back behind the mark; nothing else may.
                assert waiting <= set(numbers) <= set(range(1, assigned + 1))

    @precondition(lambda self: hasattr(self, "spool"))
    @invariant()
    def the_file_is_bounded(self) -> None:
        assert self.file.stat().st_size <= MIB

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        shutil.rmtree(self.folder)

    def _reopen(self, file: Path) -> None:
        self.batcher = Batcher(HandClock())
        self.spool = Spool(file, MIB)
        assert self.spool.epoch not in self.epochs
        self.epochs.append(self.spool.epoch)

    def _gave(self, stream: Stream, count: int) -> None:
        self.assigned[self.spool.epoch, stream] += count

    def _has_metrics(self, epoch: str) -> bool:
        # Whatever else is a loss that was told before any batch of the epoch was stored.
        return (
            self.spool._db.execute(
                "SELECT count(*) FROM metric m JOIN epoch e ON e.number = m.epoch WHERE e.name = ?", (epoch,)
            ).fetchone()[0]
            > 0
        )


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
