"""How many devices one core can direct: full signed sets a second, beside what Ed25519 alone allows.

A set is three signatures (targets, snapshot, timestamp), so a core that did nothing but sign would
make a third as many sets as signatures. Both are measured in turns in one run, in CPU seconds of this
process, because other programs may share the machine. What a server adds to that, the database,
is measured on its own, in seconds of the wall.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from fleet_protocol.targets import Description, Kind, Requirements, Target, path_of
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import Artifact, Assignment, Device, Tenant
from fleet_server.database.schema import upgrade
from fleet_server.updates.director import Director
from fleet_signing import ceremony
from fleet_signing.director import DirectorSet, sign_set
from fleet_signing.metadata import decode, now, verify

GOAL: Final = 3000
"""Sets a second on one core."""

ROUNDS: Final = 7
SETS: Final = 300
TARGETS: Final = (0, 1, 2, 4)
"""Artifacts a device; a model and its policy are two."""

DEVICES: Final = 300
PAYLOAD: Final = b"x" * 600
"""As long as the metadata of one target that is signed."""


def measure() -> dict[str, object]:
    """Sets a second for devices with so many artifacts, and through a server's database."""
    keys = ceremony.OnlineKeys.generate()
    bundle = ceremony.hold(ceremony.OfflineKeys.generate(), keys.public, now())
    root = bundle.director_roots[-1].signed
    return {
        "goal_sets_per_s": GOAL,
        "one_core": {f"{count} targets": _one_core(keys, root, count) for count in TARGETS},
        "database": _database(keys),
    }


def _one_core(keys: ceremony.OnlineKeys, root: Root, count: int) -> dict[str, object]:
    targets, at, signer = [_target(number) for number in range(count)], now(), keys.director
    _check(root, sign_set("gw-1", targets, 1, at, signer))

    def sets() -> None:
        for version in range(1, SETS + 1):
            sign_set("gw-1", targets, version, at, signer)

    def signatures() -> None:
        for _number in range(3 * SETS):
            signer.sign(PAYLOAD)

    pairs = [(_cpu_s(signatures), _cpu_s(sets)) for _round in range(ROUNDS)]
    rate = SETS / median(spent for _limit, spent in pairs)
    signed = sign_set("gw-1", targets, 1, at, signer)
    return {
        "sets_per_s": round(rate),
        "limit_sets_per_s": round(SETS / median(limit for limit, _spent in pairs)),
        "ratio": round(median(limit / spent for limit, spent in pairs), 3),
        "ratios": [round(limit / spent, 3) for limit, spent in pairs],
        "bytes_per_set": sum(len(content) for content in signed.files.values()),
        "reaches_goal": rate >= GOAL,
    }


def _database(keys: ceremony.OnlineKeys) -> dict[str, object]:
    """A server on SQLite: each device's first set, signed and kept, and the same asked for again."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'fleet.db'}")
        upgrade(engine)
        with writing(engine) as session:
            session.add(Tenant(id="city", name="City", created_ms=0))
            session.flush()
            rows = [_row(_target(number)) for number in range(2)]
            session.add_all(rows)
            session.add_all(
                Device(tenant="city", id=f"gw-{number}", profile="generic", created_ms=0)
                for number in range(DEVICES)
            )
            session.flush()
            session.add_all(_assignment(row, f"gw-{number}") for row in rows for number in range(DEVICES))
        director, at = Director(engine, "city", keys), now()

        def ask() -> None:
            for number in range(DEVICES):
                director.current(f"gw-{number}", at)

        found = {name: round(DEVICES / _wall_s(ask)) for name in ("signed_per_s", "asked_again_per_s")}
        engine.dispose()
    return {"devices": DEVICES, "targets": 2, **found}


def _check(root: Root, signed: DirectorSet) -> None:
    """What is measured is what a device accepts."""
    for kind, content in (
        (Targets, signed.targets),
        (Snapshot, signed.snapshot),
        (Timestamp, signed.timestamp),
    ):
        verify(root, kind.type, decode(content, kind))


def _target(number: int) -> Target:
    described = Description(
        kind=Kind.MODEL, name=f"model_{number}", version="1", release=1, requires=Requirements()
    )
    path = path_of(described)
    return Target(path, 163_840, f"{number:064x}", described)


def _row(target: Target) -> Artifact:
    described = target.description
    return Artifact(
        tenant="city",
        sha256=target.sha256,
        kind=described.kind.value,
        name=described.name,
        version=described.version,
        release=described.release,
        size=target.length,
        manifest=msgspec.json.encode(described).decode(),
        created_ms=0,
    )


def _assignment(row: Artifact, device: str) -> Assignment:
    return Assignment(
        tenant="city", device=device, kind=row.kind, name=row.name, artifact=row.sha256, assigned_ms=0
    )


def _cpu_s(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _wall_s(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
