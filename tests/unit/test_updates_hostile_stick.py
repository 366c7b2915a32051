"""A stick that wants the agent's memory, its stack, or a file of the device."""

import tarfile
import tracemalloc
from pathlib import Path

import pytest

from edge_agent import durable
from edge_agent.errors import UpdateUnreachable
from edge_agent.updates import receipts
from edge_agent.updates.source import Bundle

MIB = 1 << 20


def header(kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path, kind: bytes) -> None:
    bundle = tmp_path / "update.bundle"
    with bundle.open("wb") as file:
        file.write(header(kind, 64 * MIB))
        file.truncate(65 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(UpdateUnreachable):
            Bundle(bundle)
        receipts.remember(tmp_path, bundle, "gw-7", 0)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_headers_about_headers_do_not_end_the_agent(tmp_path: Path) -> None:
    bundle = tmp_path / "update.bundle"
    bundle.write_bytes((header(tarfile.GNUTYPE_LONGNAME, 512) + bytes(512)) * 3000 + bytes(1024))
    with pytest.raises(UpdateUnreachable):
        Bundle(bundle)
    receipts.remember(tmp_path, bundle, "gw-7", 0)
    assert not receipts.asks(tmp_path, bundle)


def test_a_receipt_is_not_written_through_a_link_that_lies_on_the_stick(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_bytes(b"of the device")
    (tmp_path / "update.bundle.receipt.draft").symlink_to(ours)
    with pytest.raises(OSError, match="symbolic links"):
        durable.write(tmp_path / "update.bundle.receipt", b"receipt")
    assert ours.read_bytes() == b"of the device"
