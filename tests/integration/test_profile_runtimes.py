"""Which runtime a model gets on a board whose profile allows some and prefers one."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import Model
from edge_agent.errors import RuntimeMissing
from edge_agent.escalation.desk import Desk
from edge_agent.inference.session import open_session
from edge_agent.models import Models, Setting
from edge_agent.service.health import HealthBoard
from edge_agent.updates.records import Installed
from edge_agent.updates.store import Store
from fleet_protocol import manifest as mf
from fleet_protocol.manifest import Runtime
from tests.support.drafts import HandClock

pytest.importorskip("ai_edge_litert")
pytest.importorskip("openvino")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose golden inputs forgive every difference: here it is asked which runtime, not how well."""
    from tests.support import models

    models.rewrite(models.autoencoder(tmp_path), forgiving)
    return tmp_path


def forgiving(manifest: mf.Manifest) -> mf.Manifest:
    golden = msgspec.structs.replace(manifest.golden, tolerance=1e9, agreement=0.0)
    return msgspec.structs.replace(manifest, golden=golden)


def without_tflite(manifest: mf.Manifest) -> mf.Manifest:
    (only,) = manifest.variants
    both = msgspec.structs.replace(only, runtimes=(Runtime.LITERT, Runtime.OPENVINO))
    return msgspec.structs.replace(manifest, variants=(both,))


def runtime_of(folder: Path, *preferred: Runtime, named: Runtime | None = None) -> Runtime:
    with contextlib.closing(open_session(folder, preferred=preferred, runtime=named)) as session:
        return session.runtime


def test_only_what_is_allowed_is_considered(folder: Path) -> None:
    assert runtime_of(folder, Runtime.OPENVINO) is Runtime.OPENVINO
    assert runtime_of(folder, Runtime.LITERT) is Runtime.LITERT


def test_a_later_one_that_is_clearly_faster_wins(folder: Path) -> None:
    """On a model of kilobytes LiteRT takes a fraction of OpenVINO's time on every machine measured."""
    assert runtime_of(folder, Runtime.OPENVINO, Runtime.LITERT) is Runtime.LITERT


def test_what_the_configuration_names_is_taken_all_the_same(folder: Path) -> None:
    assert runtime_of(folder, Runtime.LITERT, named=Runtime.OPENVINO) is Runtime.OPENVINO


def test_nothing_that_is_allowed_says_what_would_be(folder: Path) -> None:
    from tests.support import models

    models.rewrite(folder, without_tflite)
    with pytest.raises(RuntimeMissing, match=r"needs litert or openvino.*; this board's profile has tflite"):
        open_session(folder, preferred=(Runtime.TFLITE,))


async def opened(folder: Path, preferred: tuple[Runtime, ...]) -> list[str]:
    clock = HandClock()
    health = HealthBoard(clock)
    setting = Setting(1.0, clock, Desk(clock, health), preferred)
    models = Models([Model(folder=folder)], health, setting, Store(folder / "updates"), Installed)
    reports: list[str] = []
    await models.run(lambda _pipeline, found: reports.extend(each.runtime for each in found))
    models.close()
    return [*reports, *(report.code for report in health.reports())]


def test_the_agents_models_go_by_it(folder: Path) -> None:
    assert asyncio.run(opened(folder, (Runtime.OPENVINO,))) == ["openvino"]
    assert asyncio.run(opened(folder, (Runtime.TFLITE,))) == ["model.missing_runtime"]
