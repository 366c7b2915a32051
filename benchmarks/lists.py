"""What a long list of artifacts costs: bytes to fetch, seconds and memory of a device that looks for one.

Each look is a process of its own that begins with the pinned root, as a new device does, and finds one
artifact in the list of models. The publisher's share is signing the list with one artifact more.
"""

import io
import multiprocessing
import resource
import tarfile
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tuf.api.metadata import Targets

from edge_agent.updates.source import Bundle, closing
from edge_agent.updates.trust import Repository
from fleet_protocol.targets import Description, Kind, Target, path_of
from fleet_signing import ceremony, image
from fleet_signing.metadata import MAX_METADATA, encode, file_name, now, seal, target_file

COUNTS: Final = (1, 100, 1_000, 5_000, 10_000)
"""Artifacts in the list."""


def measure() -> dict[str, object]:
    """Every length of the list, and what a device reads at most."""
    return {"most_bytes": MAX_METADATA, "artifacts": {str(count): _measured(count) for count in COUNTS}}


def _measured(count: int) -> dict[str, object]:
    offline, online = ceremony.OfflineKeys.generate(), ceremony.OnlineKeys.generate()
    held = ceremony.hold(offline, online.public, now())
    targets = {target.path: target_file(target) for target in map(_target, range(count))}
    empty = held.roles["models"].signed
    models = seal(Targets(2, empty.spec_version, empty.expires, targets), offline.roles["models"])
    began = time.process_time()
    longer = image.add(models, _target(count), offline.roles["models"], now())
    publish_s = time.process_time() - began
    roles = {**held.roles, "models": longer}
    contents = {role: encode(metadata) for role, metadata in roles.items()}
    files = {file_name(role, roles[role].signed.version): content for role, content in contents.items()}
    snapshot = image.snapshot(contents, 0, now(), online.image)
    files[file_name("snapshot", snapshot.signed.version)] = encode(snapshot)
    stamp = image.timestamp(snapshot.signed.version, encode(snapshot), 0, now(), online.image)
    files["timestamp.json"] = encode(stamp)
    look_s, peak_mib = _looked(files, encode(held.image_roots[0]), _target(count).path)
    return {
        "bytes": len(contents["models"]),
        "publish_s": round(publish_s, 3),
        "look_s": round(look_s, 3),
        "look_peak_mib": round(peak_mib, 1),
    }


def _looked(files: dict[str, bytes], root: bytes, path: str) -> tuple[float, float]:
    """CPU seconds and MiB at most of a process that looks for ``path``."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        stick = Path(folder) / "stick.tar"
        with tarfile.open(stick, "w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"image/metadata/{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        child = context.Process(target=_look, args=(stick, root, path, theirs))
        child.start()
        found: tuple[float, float] = ours.recv()
        child.join()
    return found


def _look(stick: Path, root: bytes, path: str, answer: Connection) -> None:
    began = time.process_time()
    with closing(Bundle(stick)) as source:
        now_ms = int(time.time() * 1000)
        repository = Repository(stick.parent, "image/metadata", source, root, now_ms)
        repository.refresh()
        if repository.get_targetinfo(path) is None:
            raise LookupError(path)
    spent = time.process_time() - began
    answer.send((spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _target(number: int) -> Target:
    described = Description(kind=Kind.MODEL, name=f"model_{number}", version="1", release=1)
    return Target(path_of(described), 163_840, f"{number:064x}", described)
