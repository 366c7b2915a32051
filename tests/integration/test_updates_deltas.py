"""Deltas made by a real child, for published pairs alone; and terms of delivery in the director's word."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard
from sqlalchemy import Engine
from tuf.api.metadata import Targets

from fleet_protocol import delivery
from fleet_protocol.delivery import Delivery
from fleet_protocol.targets import Kind
from fleet_server.database.engine import writing
from fleet_server.database.models import Device, Tenant
from fleet_server.errors import BadChange
from fleet_server.updates import deltas as rooms
from fleet_server.updates.artifacts import ArtifactStore, _row
from fleet_server.updates.changes import plan_assign
from fleet_server.updates.deltas import Deltas, NotYet
from fleet_server.updates.director import Director
from fleet_signing import ceremony
from fleet_signing.artifacts import Artifact as Made
from fleet_signing.metadata import decode, now
from tests.support.repositories import policy
from tests.support.updating import model_artifact

TENANT = "city"
OLD, NEW = model_artifact(1), model_artifact(2)
OTHER = policy(1)


def publish(engine: Engine, store: ArtifactStore, *artifacts: Made) -> None:
    for artifact in artifacts:
        with store.incoming(artifact.target.path) as incoming:
            incoming.write(artifact.content)
            incoming.keep(store.path(artifact.target.sha256))
        with writing(engine) as session:
            session.add(_row(TENANT, artifact.target, 0))


@pytest.fixture
def deltas(engine: Engine, tmp_path: Path) -> Deltas:
    with writing(engine) as session:
        session.add(Tenant(id=TENANT, name="City", created_ms=0))
    store = ArtifactStore(tmp_path / "artifacts", engine, TENANT)
    publish(engine, store, OLD, NEW, OTHER)
    return Deltas(tmp_path / "deltas", store, engine, TENANT)


def provide(deltas: Deltas, old: Made, new: Made) -> Path | None:
    return asyncio.run(deltas.provide((old.target.sha256, new.target.sha256)))


def made(folder: Path) -> list[str]:
    return sorted(file.suffix for file in folder.iterdir()) if folder.exists() else []


def test_who_asks_first_has_it_made_and_the_others_get_the_same(deltas: Deltas, tmp_path: Path) -> None:
    pair = (OLD.target.sha256, NEW.target.sha256)

    async def many() -> list[Path | None]:
        return await asyncio.gather(*(deltas.provide(pair) for _device in range(20)))

    paths = asyncio.run(many())
    assert len(set(paths)) == 1
    (path,) = set(paths)
    assert path is not None
    known = zstandard.ZstdCompressionDict(OLD.content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert zstandard.ZstdDecompressor(dict_data=known).decompress(path.read_bytes()) == NEW.content
    assert path.stat().st_size < 0.9 * NEW.target.length
    before = path.stat().st_mtime_ns
    assert provide(deltas, OLD, NEW) == path
    assert path.stat().st_mtime_ns == before, "it is not made twice"
    assert made(tmp_path / "deltas") == [".zst"]


@pytest.mark.attack
def test_nothing_is_made_for_pairs_that_no_device_needs(deltas: Deltas, tmp_path: Path) -> None:
    assert provide(deltas, NEW, OLD) is None, "back"
    assert provide(deltas, OLD, OLD) is None, "to itself"
    assert provide(deltas, OLD, OTHER) is None, "to another name"
    assert provide(deltas, OLD, model_artifact(9)) is None, "to what is not published"
    assert made(tmp_path / "deltas") == []


def test_a_pair_that_is_not_worth_it_is_tried_once(deltas: Deltas, engine: Engine, tmp_path: Path) -> None:
    noise = model_artifact(5, golden=os.urandom(1))
    store = ArtifactStore(tmp_path / "artifacts", engine, TENANT)
    publish(engine, store, noise)
    # Its bytes are replaced by some that nothing can be made smaller of.
    store.path(noise.target.sha256).write_bytes(os.urandom(noise.target.length))
    assert provide(deltas, OLD, noise) is None
    assert made(tmp_path / "deltas") == [".none"]
    assert provide(deltas, OLD, noise) is None


@pytest.mark.attack
def test_who_asks_for_much_waits_for_nothing(deltas: Deltas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "WAIT_S", 0.0)
    with pytest.raises(NotYet):
        provide(deltas, OLD, NEW)


def test_what_is_kept_has_a_limit(deltas: Deltas, engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rooms, "KEPT", 1)
    third = model_artifact(3)
    publish(engine, ArtifactStore(tmp_path / "artifacts", engine, TENANT), third)
    first = provide(deltas, OLD, NEW)
    second = provide(deltas, OLD, third)
    assert first is not None
    assert second is not None
    assert not first.exists()
    assert second.exists()


TERMS = Delivery(max_kib_per_s=16, windows=("22:00-06:00",))


def assign(engine: Engine, terms: Delivery) -> list[str]:
    """Let gw-1 have the model on these terms; what the proposal shows to change."""
    arguments = {"device": "gw-1", "kind": Kind.MODEL, "name": "autoencoder", "release": 2}
    with writing(engine) as session:
        plan = plan_assign(
            session, TENANT, "", arguments | {"delivery": delivery.custom_of(terms).get("delivery", {})}
        )
        plan.carry()
        return [each.field for each in plan.diff]


def test_the_directors_word_says_on_which_terms_and_a_change_of_them_is_a_new_word(
    deltas: Deltas, engine: Engine
) -> None:
    with writing(engine) as session:
        session.add(Device(tenant=TENANT, id="gw-1", profile="generic", created_ms=0))
    director = Director(engine, TENANT, ceremony.OnlineKeys.generate())

    def word() -> tuple[int, Delivery]:
        signed = decode(director.current("gw-1", now()).targets, Targets).signed
        return signed.version, delivery.parse(signed.targets[NEW.target.path].custom)

    assert "delivery" not in assign(engine, Delivery())
    first, terms = word()
    assert terms == delivery.ANY
    assert "delivery" in assign(engine, TERMS)
    second, terms = word()
    assert (second > first, terms) == (True, TERMS)
    assert word()[0] == second
    with pytest.raises(BadChange):
        assign(engine, TERMS)
