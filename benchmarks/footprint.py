"""Memory, start and disk of a running agent: a real broker, a real Modbus server, real processes.

PSS shares the pages that several processes map, so other Python processes on the machine make it
smaller; the private part (USS) is what the agent would need alone besides its libraries' code.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from statistics import median
from typing import Final

from packaging.requirements import Requirement

from benchmarks import autoencoder
from fleet_protocol.messages import Telemetry
from tests.support.agents import AgentProcess
from tests.support.authority import TestAuthority
from tests.support.broker import SERVICE, TestBroker
from tests.support.consumer import Consumer, consuming
from tests.support.modbus import TestModbusServer
from tests.support.waiting import wait_until

ELEMENTS: Final = 64
SETTLE_S: Final = 3.0
"""What a start leaves behind is given back by then."""

STARTS: Final = 5
EXTRAS: Final = ("litert", "openvino", "tflite", "server", "postgres", "console")

SENSOR: Final = """
[spool]
flush_interval_s = 0.05
[[sensors]]
kind = "modbus"
name = "logger"
host = "127.0.0.1"
port = {port}
interval_s = 0.05
[[sensors.registers]]
metric = "signal"
unit = "bar"
address = 0
type = "float32"
"""

MODEL: Final = """
[[models]]
folder = "{folder}"
policy = "{policy}"
runtime = "{runtime}"
isolation = "{isolation}"
"""

POLICY: Final = """
format = 1
name = "footprint"
version = "1"
release = 1
model = "autoencoder"
[[rules]]
name = "strange"
when = "label == 'strange' && score > 1000000.0"
outcome = "event"
"""


def measure() -> dict[str, object]:
    """Memory by configuration, time to the first reading, disk by extra."""
    with tempfile.TemporaryDirectory() as place, _surroundings(Path(place)) as world:
        memory = {
            "modbus": world.memory("modbus", ""),
            "modbus_cel_litert_worker": world.memory("litert", world.model("litert", "worker")),
            "modbus_cel_litert_in_process": world.memory("direct", world.model("litert", "none")),
            "modbus_cel_openvino_worker": world.memory("openvino", world.model("openvino", "worker")),
        }
        starts = [world.first_reading(f"start-{place}") for place in range(STARTS)]
    return {
        "memory": memory,
        "start_to_first_reading_at_the_server_ms": {
            "median": round(median(starts)),
            "worst": round(max(starts)),
        },
        "disk_mb": _disk(),
    }


class _World:
    """What an agent needs around it."""

    def __init__(
        self, place: Path, authority: TestAuthority, ports: tuple[int, int], consumer: Consumer
    ) -> None:
        self._place = place
        self._authority = authority
        self._broker, self._modbus = ports
        self._consumer = consumer

    def model(self, runtime: str, isolation: str) -> str:
        """The configuration of a model; the simulated world runs so that a step is one poll."""
        folder, policy = self._place / "model", self._place / "policy.toml"
        autoencoder.write_bundle(folder, ELEMENTS)
        policy.write_text(POLICY)
        return MODEL.format(folder=folder, policy=policy, runtime=runtime, isolation=isolation)

    def memory(self, name: str, model: str) -> dict[str, object]:
        """MiB of a running agent and of its worker, once it answers."""
        with self._running(name, model) as agent:
            self._wait(name, answers=model != "")
            time.sleep(SETTLE_S)
            pid = agent.process.pid if agent.process else 0
            parts = {"agent": _memory(pid)}
            for place, worker in enumerate(_children(pid), 1):
                parts[f"worker_{place}"] = _memory(worker)
        return parts | {
            "summed_pss_mib": round(sum(each["pss_mib"] for each in parts.values()), 1),
        }

    def first_reading(self, name: str) -> float:
        """Milliseconds from starting the process to its first reading at the server's side."""
        began = time.monotonic()
        with self._running(name, ""):
            self._wait(name, answers=False)
            return (time.monotonic() - began) * 1000

    @contextmanager
    def _running(self, name: str, model: str) -> Iterator[AgentProcess]:
        sections = SENSOR.format(port=self._modbus) + model
        agent = AgentProcess(self._place / name, self._authority.issue(name), self._broker, sections)
        text = agent.config.read_text()
        agent.config.write_text("time_factor = 20.0\n" + text)
        agent.start()
        try:
            yield agent
        finally:
            agent.stop()

    def _wait(self, name: str, *, answers: bool) -> None:
        def arrived() -> bool:
            batches = [each for each in self._consumer.content_of(name) if isinstance(each, Telemetry)]
            return any(each.inferences if answers else each.readings for each in batches)

        wait_until(arrived, f"{name} is heard of", 60)


@contextmanager
def _surroundings(place: Path) -> Iterator[_World]:
    authority = TestAuthority(place / "authority")
    broker = TestBroker(place / "broker", authority)
    with ExitStack() as stack:
        modbus = stack.enter_context(closing(TestModbusServer([0x3F80, 0])))
        modbus.start()
        broker.start()
        stack.callback(broker.stop)
        consumer = stack.enter_context(consuming(broker.port, authority.issue(SERVICE)))
        yield _World(place, authority, (broker.port, modbus.port), consumer)


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in listed.stdout.split()]


def _memory(pid: int) -> dict[str, float]:
    kib: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        kib[name] = int(value.split()[0])
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    sizes = {"pss_mib": kib["Pss"], "uss_mib": private, "rss_mib": kib["Rss"]}
    return {name: round(size / 1024, 1) for name, size in sizes.items()}


def _disk() -> dict[str, object]:
    """MB of files, without bytecode, that the core install has and that each extra adds to it."""
    core = _closure("argan", "")
    sizes: dict[str, object] = {"core": _megabytes(core)}
    for extra in EXTRAS:
        packages = _closure("argan", extra) - core
        missing = sorted(each for each in packages if _find(each) is None)
        sizes[extra] = f"not installed here: {', '.join(missing)}" if missing else _megabytes(packages)
    return sizes


def _closure(package: str, extra: str) -> set[str]:
    """``package`` with ``extra`` and all that they require."""
    found: set[str] = set()
    waiting = [(package, extra)]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        installed = _find(name)
        for line in (installed.requires if installed else None) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                waiting += [(needed.name.lower().replace("_", "-"), each) for each in needed.extras or {""}]
    return found


def _find(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _megabytes(packages: set[str]) -> float:
    size = 0
    for name in packages - {"argan"}:
        installed = _find(name)
        for file in (installed.files if installed else None) or []:
            path = Path(str(file.locate()))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
    return round(size / 1e6, 1)
