"""Lives of a device's updates: the look, the executor and the store at work on one folder; some end early.

``python -m tests.support.cut_lives`` reads lives from standard input, one JSON line each, forks for each,
and says how it ended: ``-9`` where the power was cut.
"""

import asyncio
import os
import sys
import traceback
from pathlib import Path

import msgspec

import fleet_protocol.policy  # noqa: F401 - loaded once, not in every life
from edge_agent.config import Model
from edge_agent.inference.bundle import read_bundle
from edge_agent.updates.executor import Executor, Terms
from edge_agent.updates.look import look
from edge_agent.updates.spoken import Accepted, Ask, Done, Progress, Refused, Said
from edge_agent.updates.store import Store
from fleet_protocol.targets import Kind
from tests.support.drafts import HandClock
from tests.support.interposer import interpose, watch
from tests.support.lost_writes import Recorder
from tests.unit.test_updates_power_cut import Bench


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """A device that has ``fitted`` fitted, looks as ``ask`` says, and takes what it is given to its end.

    ``bad`` are the digests that fail their golden inputs, ``ill`` those that fail in their probation.
    ``control`` is where its acts are counted; or ``record`` is where every state of its disk is left,
    ``thorough``ly or not.
    """

    ask: Ask
    fitted: str
    bad: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()
    control: str = ""
    record: str = ""
    thorough: bool = False

    @property
    def folder(self) -> Path:
        """The folder of updates."""
        return Path(self.ask.folder)


class Outcome(msgspec.Struct, frozen=True):
    """What runs, by release; the fitted model's policy is 0. And where the last updates stand."""

    model: int
    policy: int
    states: dict[str, str] = {}


def start(life: Life) -> tuple[Bench, Outcome]:
    """The device as it comes up: whatever runs is whole, or this raises."""
    store = Store(life.folder)
    executor = Executor(life.folder, store, HandClock(), Terms(0.0, 0), frozenset({"signal"}))
    bench = Bench([Model(folder=Path(life.fitted))], store, executor, life.bad, life.ill)
    bench.boot()
    return bench, outcome(bench)


def live(life: Life) -> Outcome:
    """A whole life: come up, look, and go on until nothing moves and a look brings nothing."""
    bench, _outcome = start(life)
    asyncio.run(_live(life, bench))
    return outcome(bench)


async def _live(life: Life, bench: Bench) -> None:
    executor = bench.executor
    executor.resume()
    news = True
    while news:
        while await executor.advance(bench):
            pass
        news = False
        for said in _looked(life.ask, executor):
            news |= isinstance(said, Accepted)
            _hear(executor, said)


def _hear(executor: Executor, said: Said) -> None:
    """Hand on what an agent would; whatever else a look may say has no place here."""
    match said:
        case Progress(target=target):
            executor.begin(target)
        case Accepted(target=target):
            executor.accept(target)
        case Refused(refusal=refusal, detail=detail, target=target) if target is not None:
            executor.refuse(target, refusal, detail)
        case Done(ordered=ordered):
            executor.settle(ordered)
        case _:
            raise AssertionError(said)


def _looked(asked: Ask, executor: Executor) -> list[Said]:
    installed = executor.installed
    said: list[Said] = []
    asked = msgspec.structs.replace(
        asked,
        having=[(slot.kind, slot.name, slot.current.sha256) for slot in installed.slots if slot.current],
        busy=executor.busy,
        failed=[(each.kind, each.name, each.sha256) for each in installed.failed],
    )
    look(asked, said.append)
    return said


def outcome(bench: Bench) -> Outcome:
    """Where ``bench`` stands."""
    executor = bench.executor
    policy = executor.installed.slot((Kind.POLICY, "watch")).current
    return Outcome(
        read_bundle(bench.running["autoencoder"].path).manifest.release,
        policy.description.release if policy else 0,
        {entry.target.path: entry.state.value for entry in executor.journal.entries},
    )


def main() -> None:
    """Fork for each life on standard input."""
    for line in sys.stdin.buffer:
        life = msgspec.json.decode(line, type=Life)
        child = os.fork()
        if child == 0:
            _end(life)
        _child, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _end(life: Life) -> None:
    status = 1
    try:
        if life.record:
            _record(life)
        else:
            interpose(str(life.folder.parent), life.control)
            live(life)
        status = 0
    except Exception:  # noqa: BLE001 - whatever it was is told, and the fork ends
        traceback.print_exc()
    finally:
        os._exit(status)


def _record(life: Life) -> None:
    recorder = Recorder(life.folder.parent, frozenset({"metadata"}), life.thorough)
    watch(str(life.folder.parent), recorder.before, recorder.flushed)
    live(life)
    recorder.before("the end", "")
    recorder.write(Path(life.record))


if __name__ == "__main__":
    main()
