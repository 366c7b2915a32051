"""Version reports: what is read of them, desired against reported, and which words cannot both be true."""

import contextlib
from dataclasses import asdict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_console.commands import version_text
from fleet_protocol import versions
from fleet_protocol.errors import VersionError
from fleet_protocol.messages import ClockState, UpdateReport
from fleet_protocol.targets import Kind, Refusal
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import (
    FailedVersion,
    Happened,
    InstalledVersion,
    OrderedVersion,
    RefusedScope,
    VersionReport,
)
from fleet_server.errors import Unattested
from fleet_server.updates.bundle_nonces import LIFE_MS, BundleNonces
from fleet_server.updates.difference import Told, Wished, Word, contradictions, differences

BOOT, NOW = "0" * 16, 1_800_000_000_000
SHA = {release: f"{release:064x}" for release in range(9)}


def installed(release: int, name: str = "leak") -> InstalledVersion:
    return InstalledVersion(
        kind=Kind.MODEL, name=name, version=f"1.{release}", release=release, sha256=SHA[release]
    )


def update(state: str, release: int, runs: int = 0, **more: Any) -> UpdateReport:
    since = more.pop("since", NOW - 10)
    return UpdateReport(
        kind="model", name="leak", release=release, version=f"1.{release}", state=state,
        since_wall_ms=since, installed=runs, **more,
    )  # fmt: skip


def report(runs: int = 0, *updates: UpdateReport, **more: Any) -> VersionReport:
    known: dict[str, Any] = {
        "device": "gw-1", "nonce": "n" * 16, "agent": "edge-agent/1", "profile": "generic", "boot_id": BOOT,
        "wall_ms": NOW, "clock": ClockState.TRUSTED, "journal": BOOT, "happened": 0,
    }  # fmt: skip
    return VersionReport(
        **known | {"installed": (installed(runs),) if runs else (), "updates": updates} | more
    )


def wish(release: int) -> Wished:
    return Wished("model", "leak", f"1.{release}", release, SHA[release])


def word(said: VersionReport, way: str = "online") -> Word:
    return Word(said, way, NOW)


FAILED, DONE = UpdateState.FAILED.value, UpdateState.COMMITTED.value
THERE = Told((), NOW - 1)
GONE = Told((), NOW + 1, is_there=False)


@pytest.mark.parametrize(
    ("wished", "said", "told", "expected"),
    [
        (2, None, None, (0, "", "unheard", "")),
        (2, word(report(2, update(DONE, 2, 2))), THERE, (2, "online", "same", "")),
        (2, word(report(2, update(DONE, 2, 2)), "courier"), None, (2, "courier", "same", "")),
        (None, word(report(1)), None, (1, "online", "unwished", "")),
        (2, word(report(1, update(DONE, 1, 1))), THERE, (1, "online", "awaited", "")),
        (2, word(report(1, update(DONE, 1, 1))), GONE, (1, "online", "silent", "")),
        (2, word(report(1, update("downloading", 2, 1))), THERE, (1, "online", "downloading", "")),
        (2, word(report(1, update("testing", 2, 1))), THERE, (1, "online", "under_way", "")),
        (2, word(report(2, update("probation", 2, 2))), THERE, (2, "online", "probation", "")),
        (2, word(report(1, update("rolled_back", 2, 1))), THERE, (1, "online", "rolled_back", "")),
        (2, word(report(1, update(FAILED, 2, 1))), THERE, (1, "online", "failed", "")),
        (
            2,
            word(report(1, update(FAILED, 2, 1, refusal="wrong_hardware"))),
            THERE,
            (1, "online", "refused", "wrong_hardware"),
        ),
        (
            2,
            word(report(1, refused=(RefusedScope(scope="director", refusal=Refusal.FORGED),))),
            THERE,
            (1, "online", "refused", "forged"),
        ),
        (2, word(report(1, problem="no route to host")), THERE, (1, "online", "unreachable", "")),
        # The broker heard of it later, and says something else than what was signed.
        (2, word(report(1)), Told([update(DONE, 2, 2)], NOW + 1), (2, "mqtt", "same", "")),
        (2, None, Told([update(FAILED, 2, 1)], NOW), (1, "mqtt", "failed", "")),
        # The release of the same number is another artifact.
        (3, word(report(0, installed=(msgspec.structs.replace(installed(3), sha256=SHA[4]),))), THERE,
         (3, "online", "awaited", "")),
    ],
)  # fmt: skip
def test_why_a_device_has_not_what_it_shall_have(
    wished: int | None, said: Word | None, told: Told | None, expected: tuple[int, str, str, str]
) -> None:
    (found,) = differences([wish(wished)] if wished else [], said, told)
    assert (found.reported_release, found.reported_by, found.why, found.refusal) == expected
    assert found.text.endswith(".")


def test_nothing_wished_and_nothing_reported_is_no_difference() -> None:
    assert differences([], None, None) == []
    assert differences([], word(report()), THERE) == []


@pytest.mark.parametrize(
    ("told", "lies"),
    [
        (Told([update(DONE, 2, 2, since=NOW - 10)], NOW, wall_ms=NOW + 5, boot_id=BOOT), True),
        (Told([update(DONE, 1, 1, since=NOW - 10)], NOW, wall_ms=NOW + 5, boot_id=BOOT), False),
        # It switched after it signed, or the broker's word is the older one, or of another boot.
        (Told([update(DONE, 2, 2, since=NOW + 1)], NOW, wall_ms=NOW + 5, boot_id=BOOT), False),
        (Told([update(DONE, 2, 2, since=NOW - 10)], NOW, wall_ms=NOW - 5, boot_id=BOOT), False),
        (Told([update(DONE, 2, 2, since=NOW - 10)], NOW, wall_ms=NOW + 5, boot_id="1" * 16), False),
        (Told([update("testing", 2, 0, since=NOW - 10)], NOW, wall_ms=NOW + 5, boot_id=BOOT), False),
    ],
)
def test_two_words_that_cannot_both_be_true_are_found(told: Told, lies: bool) -> None:
    assert bool(contradictions(word(report(1, update(DONE, 1, 1))), told)) is lies


HAPPENED = Happened(
    number=1, wall_ms=NOW, clock=ClockState.TRUSTED, subject="models/leak/2.tar", version="1.2", release=2,
    sha256=SHA[2], state=UpdateState.COMMITTED,
)  # fmt: skip
FULL = report(2, update(DONE, 2, 2), history=(HAPPENED,), repositories={"image": {"root": 1}})


@given(st.binary(max_size=400))
def test_hostile_bytes_are_a_report_or_one_typed_error(content: bytes) -> None:
    for decode in (versions.decode, versions.decode_request):
        with contextlib.suppress(VersionError):
            decode(content)


@given(st.data())
def test_a_damaged_report_is_a_report_or_one_typed_error(data: st.DataObject) -> None:
    content = bytearray(versions.encode(FULL))
    for _number in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(VersionError):
        versions.decode(bytes(content))


def test_a_report_is_read_as_it_was_written() -> None:
    assert versions.decode(versions.encode(FULL)) == FULL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nonce": "short"}, "nonce"),
        ({"device": "../x"}, "device"),
        ({"more": 1}, "unknown field"),
        ({"installed": [msgspec.to_builtins(installed(1))] * 200}, "Expected"),
        ({"repositories": {"image": {f"r{n}": 1 for n in range(200)}}}, "too many roles"),
    ],
)
def test_what_goes_beyond_the_limits_is_refused(change: dict[str, object], said: str) -> None:
    content = msgspec.json.encode(msgspec.to_builtins(FULL) | change)
    with pytest.raises(VersionError, match=said):
        versions.decode(content)
    with pytest.raises(VersionError, match="at most"):
        versions.decode(b" " * (versions.MAX_REPORT + 1))


def test_the_oldest_of_the_history_goes_where_there_is_no_room() -> None:
    long = msgspec.structs.replace(HAPPENED, detail="ü" * 200, subject="ä" * 200)
    history = tuple(msgspec.structs.replace(long, number=n) for n in range(versions.MAX_ENTRIES))
    content = versions.encode(msgspec.structs.replace(FULL, history=history))
    kept = versions.decode(content).history
    assert 0 < len(kept) < len(history)
    assert kept[-1] == history[-1]
    failed = FailedVersion(kind=Kind.MODEL, name="leak", release=1, sha256=SHA[1], detail="ü" * 200)
    assert versions.decode(versions.encode(msgspec.structs.replace(FULL, failed=(failed,) * 128))).failed
    many = (update(DONE, 2, 2, detail="ü" * 200),) * 128
    with pytest.raises(VersionError, match="at most"):
        versions.encode(msgspec.structs.replace(FULL, updates=many))


@pytest.mark.attack
def test_a_director_that_orders_too_much_cannot_keep_a_device_from_saying_what_it_runs() -> None:
    order = OrderedVersion(kind=Kind.POLICY, name="x" * 63, version="1", release=1, sha256=SHA[1])
    orders = tuple(msgspec.structs.replace(order, release=n) for n in range(1, 129))
    refused = tuple(update("failed", n, 0, refusal="not_published", detail="ü" * 200) for n in range(1, 128))
    under_way = update("probation", 1, 1)
    report = msgspec.structs.replace(FULL, ordered=orders, updates=(*refused, under_way))
    said = versions.decode(versions.encode(report))
    assert said.installed == FULL.installed
    assert said.updates[-1] == under_way
    assert len(said.updates) > 1


def test_a_bundles_nonce_counts_for_its_device_and_its_time_alone() -> None:
    nonces = BundleNonces(b"k" * 32)
    asked = nonces.request("gw-1", NOW)
    assert versions.decode_request(msgspec.json.encode(asked)) == asked
    assert nonces.issued_ms(asked.nonce, "gw-1", NOW + LIFE_MS) == NOW
    assert nonces.request("gw-1", NOW).nonce != asked.nonce
    for device, now_ms, key, said in (
        ("gw-2", NOW, b"k", "for another device"),
        ("gw-1", NOW + LIFE_MS + 1, b"k", "receipts count for 90"),
        ("gw-1", NOW, b"x", "has not exported"),
    ):
        with pytest.raises(Unattested, match=said):
            BundleNonces(key * 32).issued_ms(asked.nonce, device, now_ms)
    with pytest.raises(Unattested, match="has not exported"):
        nonces.issued_ms("B" + asked.nonce[1:], "gw-1", NOW)


def test_what_a_device_says_moves_nothing_on_the_terminal() -> None:
    """C1 controls are none of those that a report is refused for."""
    update = UpdateReport(
        kind=Kind.MODEL, name="leak", release=3, version="1.3", state=UpdateState.FAILED, since_wall_ms=NOW,
        detail="\x9b2Jall is well",
    )  # fmt: skip
    told = Told([update], heard_ms=NOW)
    items = [asdict(each) for each in differences([Wished("model", "leak", "1.3", 3, SHA[3])], None, told)]
    text = version_text.versions({"items": items}, NOW)
    assert "\x9b" not in text
    assert "\\x9b2Jall is well" in text
