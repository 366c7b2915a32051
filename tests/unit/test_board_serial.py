"""What a board is called: by its firmware, its network card or its system, in that order."""

from pathlib import Path

from edge_agent.enrollment.serial import board_serial
from fleet_protocol.enrollment import is_serial


def put(root: Path, place: str, content: str) -> None:
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_the_first_source_that_says_something_counts(tmp_path: Path) -> None:
    assert board_serial(tmp_path) == "unknown"
    put(tmp_path, "etc/machine-id", "0123456789abcdef\n")
    assert board_serial(tmp_path) == "machine:0123456789abcdef"
    put(tmp_path, "sys/class/net/docker0/address", "02:42:00:00:00:01\n")
    assert board_serial(tmp_path) == "machine:0123456789abcdef", "a card of software is no board's"
    put(tmp_path, "sys/class/net/eth0/address", "d8:3a:dd:01:02:03\n")
    (tmp_path / "sys/class/net/eth0/device").mkdir()
    assert board_serial(tmp_path) == "mac:d8:3a:dd:01:02:03"
    put(tmp_path, "sys/class/dmi/id/board_serial", "MB-77\n")
    assert board_serial(tmp_path) == "board:MB-77"
    put(tmp_path, "sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n")
    assert board_serial(tmp_path) == "board:MB-77", "what a maker left open says nothing"
    put(tmp_path, "sys/firmware/devicetree/base/serial-number", "10000000abcdef01\x00")
    assert board_serial(tmp_path) == "board:10000000abcdef01"


def test_whatever_a_maker_writes_can_be_sent(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/dmi/id/product_serial", "Ärger\x01\n" + "9" * 300)
    assert is_serial(board_serial(tmp_path))


def test_this_machine_has_a_number() -> None:
    assert is_serial(board_serial())
