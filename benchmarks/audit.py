"""How fast a record of changes is proved: records a second, beside SHA-256 alone over the same bytes.

A chain of a million records on SQLite, with a checkpoint behind every hundred. What bounds a verification is
one SHA-256 a record: that alone, over the same texts, is measured in the same run, in CPU seconds of
this process, because other programs may share the machine. Beside it stands by how much the process grew.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, insert

from fleet_server.audit.chain import BEGINNING, canonical, digest_of
from fleet_server.audit.checkpoints import STEADY, sign, walk
from fleet_server.audit.sources import opened_export, rows, write_export
from fleet_server.audit.verification import verify
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import AuditRecord, Tenant
from fleet_server.database.schema import upgrade
from fleet_signing import keys

RECORDS: Final = 1_000_000
_PART: Final = 10_000
_TENANT: Final = "city"


def measure() -> dict[str, object]:
    """Records a second from the database and from an export, and what SHA-256 alone would do."""
    signer = keys.generate()
    key = keys.public_text(signer.public_key)
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'fleet.db'}")
        upgrade(engine)
        lines = _fill(engine, signer)
        out = Path(folder) / "export.jsonl"
        began = time.process_time()
        write_export(engine, _TENANT, key, lines[-1], out)
        exported_s = time.process_time() - began
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # forgets the peak
        resident = _resident("VmRSS")
        database_s = _verify_s(rows(engine, _TENANT), lines, key)
        grown = _resident("VmHWM") - resident
        with opened_export(out) as (_head, exported):
            export_s = _verify_s(exported, lines, key)
        raw_s, size = _raw_s(engine)
        engine.dispose()
    return {
        "records": RECORDS,
        "checkpoints": len(lines),
        "bytes_per_record": round(size / RECORDS),
        "sha256_alone_records_per_s": round(RECORDS / raw_s),
        "verify_database_records_per_s": round(RECORDS / database_s),
        "verify_export_records_per_s": round(RECORDS / export_s),
        "write_export_records_per_s": round(RECORDS / exported_s),
        "ratio_to_sha256_alone": round(raw_s / database_s, 3),
        "memory_grown_bytes": grown,
    }


def _fill(engine: Engine, signer: Any) -> list[bytes]:
    """A chain as the server writes it, and its checkpoints."""
    with writing(engine) as session:
        session.add(Tenant(id=_TENANT, name=_TENANT, created_ms=0))
    previous, last, lines, part = BEGINNING, None, [], []
    for number in range(1, RECORDS + 1):
        fields = _fields(number, previous)
        previous = digest_of(fields)
        part.append(fields | {"sha256": previous})
        if number % STEADY.records == 0:
            last = sign(signer, last, _TENANT, (number, previous), number)
            lines.append(last.line)
        if len(part) == _PART:
            with writing(engine) as session:
                session.connection().execute(insert(AuditRecord), part)
            part = []
    return lines


def _fields(number: int, previous: str) -> dict[str, object]:
    return {
        "tenant": _TENANT,
        "number": number,
        "time_ms": 1_800_000_000_000 + number,
        "person": "operator",
        "role": "admin",
        "source": "192.0.2.7",
        "action": "group.set",
        "subject": f"group-{number}",
        "before_sha256": "a" * 64,
        "after_sha256": "b" * 64,
        "detail": '{"before":"site=north","devices":12,"filter":"site=north profile=pi5"}',
        "previous_sha256": previous,
    }


def _verify_s(chain: Iterator[Any], lines: list[bytes], key: str) -> float:
    began = time.process_time()
    report = verify(chain, walk(lines, key, _TENANT))
    spent = time.process_time() - began
    if not report.is_whole or report.records != RECORDS or report.signed != RECORDS:
        raise AssertionError(report)
    return spent


def _raw_s(engine: Engine) -> tuple[float, int]:
    """SHA-256 alone over the texts that a verification digests; and their size in all."""
    spent, size = 0.0, 0
    for row in rows(engine, _TENANT):
        content = canonical({name: value for name, value in row.items() if name != "sha256"}).encode()
        size += len(content)
        began = time.process_time_ns()
        hashlib.sha256(content).hexdigest()
        spent += time.process_time_ns() - began
    return spent / 1e9 - _clock_s(RECORDS), size


def _clock_s(times: int) -> float:
    """What asking the clock so often costs by itself."""
    spent = 0
    for _turn in range(times):
        began = time.process_time_ns()
        spent += time.process_time_ns() - began
    return spent / 1e9


def _resident(field: str) -> int:
    """Bytes of this process's memory: ``VmRSS`` now, ``VmHWM`` at the most since it was forgotten."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
