"""Fixtures that any test may ask for: an authority, a broker, a consumer, agents that end with the test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import cut_counts
from tests.support.agents import AgentProcess
from tests.support.authority import TestAuthority
from tests.support.broker import SERVICE, TestBroker
from tests.support.consumer import Consumer, consuming
from tests.support.disk import small_file_system
from tests.support.ledger import Ledger, Tried, mark_case, recorder
from tests.support.security_module import SecurityModule

ENDURANCE = "power_cut"

# Before NumPy comes in: with more threads than one, OpenBLAS now and then stalls on some processors.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Count attacks and power cuts where the run is reported; a worker hands its reports over."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Ledger())
        config.pluginmanager.register(cut_counts.CutCounts())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes half an hour, unless it is asked for by its marker."""
    if ENDURANCE not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker(ENDURANCE)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """See :func:`tests.support.ledger.mark_case`."""
    mark_case(item)


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Tried:
    """See :func:`tests.support.ledger.recorder`."""
    return recorder(request)


@pytest.fixture
def cuts(request: pytest.FixtureRequest) -> cut_counts.Cuts:
    """See :func:`tests.support.cut_counts.recorder`."""
    return cut_counts.recorder(request)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """The certificate authority of the test run."""
    return TestAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def security_module(tmp_path_factory: pytest.TempPathFactory) -> SecurityModule:
    """SoftHSM; one for the run, because its library is loaded once for each process."""
    return SecurityModule(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def broker(tmp_path: Path, authority: TestAuthority) -> Iterator[TestBroker]:
    """A running mosquitto."""
    broker = TestBroker(tmp_path / "broker", authority)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def consumer(broker: TestBroker, authority: TestAuthority) -> Iterator[Consumer]:
    """A server side that acknowledges what it holds."""
    with consuming(broker.port, authority.issue(SERVICE)) as consumer:
        yield consumer


@pytest.fixture
def start_agent(tmp_path: Path, authority: TestAuthority) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents by name, port and configuration sections; they end with the test."""
    agents: list[AgentProcess] = []

    def start(name: str, port: int, sections: str, *, run: bool = True) -> AgentProcess:
        agent = AgentProcess(tmp_path / name, authority.issue(name), port, sections)
        agents.append(agent)
        if run:
            agent.start()
        return agent

    yield start
    for agent in agents:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    with small_file_system(folder) as mounted:
        if not mounted:
            pytest.skip("mounting a small file system needs root")
        yield folder
