"""The QR code of an invitation: it fits on a small terminal, and is the token."""

import secrets

import pytest
import segno

from fleet_console.commands.inviting import drawn
from fleet_protocol.enrollment import Invitation, encode

_HALVES = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
"""What a character draws of two modules, one above the other: 1 is dark, on a dark terminal."""


def modules(text: str) -> list[list[int]]:
    rows: list[list[int]] = []
    for line in text.splitlines():
        rows += [[_HALVES[letter][half] for letter in line] for half in (0, 1)]
    return rows


def token(address: str, device: str) -> str:
    return encode(
        Invitation(address, secrets.token_bytes(32), device, secrets.token_bytes(32), 1_795_000_000)
    )


@pytest.mark.parametrize(
    ("address", "device", "lines", "border"),
    [("192.168.10.4:18884", "gw-1", 23, 2), ("fleet.stadtwerke.example:18884", "pumpwerk-nord-07", 24, 1)],
)
def test_it_is_the_token_and_fits_on_a_terminal_of_80_by_24(
    address: str, device: str, lines: int, border: int
) -> None:
    text = token(address, device)
    picture = drawn(text)
    assert max(len(line) for line in picture.splitlines()) <= 80
    assert len(picture.splitlines()) <= lines
    code = segno.make_qr(text, error="l", boost_error=False)
    wanted = [list(row) for row in code.matrix_iter(border=border)]
    assert modules(picture)[: len(wanted)] == wanted


def test_a_long_address_still_fits_across() -> None:
    picture = drawn(token("a" * 253 + ":18884", "g" * 63))
    assert max(len(line) for line in picture.splitlines()) <= 80
