"""The install history, what stands and why, and the receipt that a bundle asks for: on the device."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent.config import load
from edge_agent.errors import ModelRefused, UpdateBroken
from edge_agent.updates import history, receipt_writing, receipts, records
from edge_agent.updates import ledger as ledgers
from edge_agent.updates.explaining import findings
from edge_agent.updates.ledger import Ledger
from edge_agent.updates.marks import Marks, RepositoryMark
from edge_agent.updates.osimage import record
from edge_agent.updates.osimage.record import Handover, Phase
from edge_agent.updates.records import Entry, History, Installed, Journal, Looked, Refusing
from edge_agent.updates.statement import Records, statement
from edge_agent.updates.telling import tell
from fleet_protocol.messages import ClockState
from fleet_protocol.targets import Refusal
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import OrderedVersion, encode
from tests.support.drafts import HandClock
from tests.support.updating import calm, write_bundle
from tests.unit.test_updates_executor import MODEL, NEWER, SETTINGS, Bench

S = UpdateState
NONCE = "n" * 64


def told(bench: Bench) -> list[tuple[str, str]]:
    return [(each.subject, each.state.value) for each in bench.executor.history.entries]


def committed(bench: Bench) -> None:
    bench.accept(MODEL)
    bench.advance()
    bench.runner.seen = calm(20)
    bench.clock.advance(400_000)
    bench.advance()


def test_every_end_is_in_the_history_with_its_reason_and_outlives_the_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    committed(bench)
    bench.runner.failing = ModelRefused("it does not open")
    bench.accept(NEWER)
    bench.advance()
    first, newer = MODEL.target.path, NEWER.target.path
    assert told(bench) == [(first, "probation"), (first, "committed"), (newer, "rolled_back")]
    before = bench.executor.history
    assert "it does not open" in before.entries[-1].detail
    assert bench.reopened().history == before
    # The same refusal with every look is one entry.
    for _look in range(3):
        bench.executor.refuse(NEWER.target, Refusal.FAILED_HERE, "it failed here")
    assert bench.executor.history.happened == 4
    bench.executor.looked(Looked(refused=(Refusing("director", Refusal.FORGED, "by nobody"),)))
    bench.executor.looked(Looked(refused=(Refusing("director", Refusal.FORGED, "by nobody"),), problem="x"))
    assert [(each.subject, each.refusal) for each in bench.executor.history.entries[4:]] == [
        ("director", Refusal.FORGED)
    ]


def test_the_history_is_bounded_and_counts_what_it_has_let_go() -> None:
    kept = History()
    for number in range(history.KEPT + 10):
        entry = Entry(target=MODEL.target, state=S.FAILED, since_wall_ms=1, detail=str(number))
        kept = history.noted(kept, entry, 1, ClockState.UNTRUSTED)
    assert (len(kept.entries), kept.happened) == (history.KEPT, history.KEPT + 10)
    assert kept.entries[-1].number == kept.happened


def test_a_history_that_cannot_be_read_is_set_aside_and_another_begins(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    committed(bench)
    before = bench.executor.history
    (tmp_path / "history.json").write_bytes(b"\0" * 100)
    after = bench.reopened().history
    assert (after.happened, after.entries) == (0, ())
    assert after.id != before.id
    assert (tmp_path / "history.json.unreadable").exists()
    assert bench.state() is S.COMMITTED


def test_the_report_says_what_runs_since_when_and_what_failed_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    committed(bench)
    bench.runner.failing = ModelRefused("it does not open")
    bench.accept(NEWER)
    bench.advance()
    executor = bench.executor
    marks = Marks(repositories={"image": RepositoryMark({"root": 3}, "k")})
    known = Records(executor.journal, executor.installed, executor.history, marks)
    said = statement("gw-7", "generic", NONCE, bench.clock, known, [])
    (runs,), (failed,) = said.installed, said.failed
    assert (runs.release, runs.sha256) == (1, MODEL.target.sha256)
    assert runs.since_wall_ms == executor.history.entries[0].wall_ms > 0
    assert (failed.release, "it does not open" in failed.detail) == (2, True)
    assert said.repositories == {"image": {"root": 3}}
    assert encode(said)


def entry(state: UpdateState, **more: object) -> Entry:
    return replace(Entry(target=NEWER.target, state=state, since_wall_ms=1), **more)


def ordered(release: int) -> OrderedVersion:
    target = {1: MODEL, 2: NEWER}[release].target
    described = target.description
    return OrderedVersion(
        kind=described.kind, name=described.name, version=described.version, release=release,
        sha256=target.sha256,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (Journal(), []),
        (Journal(entries=(entry(S.COMMITTED),)), []),
        (Journal(looked=Looked(problem="no route to host")), ["unreachable"]),
        (Journal(looked=Looked(problem="x: No space left on device")), ["no_room"]),
        (Journal(looked=Looked(refused=(Refusing("image", Refusal.EXPIRED, "old"),))), ["expired"]),
        (Journal(entries=(entry(S.FAILED, refusal=Refusal.WRONG_HARDWARE),)), ["wrong_hardware"]),
        (Journal(entries=(entry(S.FAILED, detail="No space left on device"),)), ["no_room"]),
        (Journal(entries=(entry(S.FAILED, detail="golden inputs"),)), ["failed"]),
        (Journal(entries=(entry(S.ROLLED_BACK, detail="it alarms more often"),)), ["rolled_back"]),
        (Journal(entries=(entry(S.DOWNLOADING),)), ["downloading"]),
        (Journal(entries=(entry(S.PROBATION),)), ["probation"]),
        (Journal(entries=(entry(S.TESTING),)), ["under_way"]),
        (Journal(looked=Looked(ordered=(ordered(2),))), ["waiting"]),
        (Journal(looked=Looked(ordered=(ordered(1),))), []),
        (Journal(entries=(entry(S.DOWNLOADING),), looked=Looked(ordered=(ordered(2),))), ["downloading"]),
    ],
)
def test_everything_that_stands_is_explained_with_a_next_step(journal: Journal, expected: list[str]) -> None:
    found = findings(journal, Installed().switched(MODEL.target), {})
    assert [each.code for each in found] == expected
    assert all(each.meaning.endswith(".") and each.next_step.endswith(".") for each in found)
    if expected == ["waiting"]:
        assert found[0].detail == "ordered is release 2, release 1 runs"


def test_status_explain_and_history_are_told_as_text_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text(SETTINGS)
    config = load(tmp_path / "agent.toml")
    bench = Bench(tmp_path / "data" / "updates")
    bench.runner.refusing = ModelRefused("its golden inputs fail")
    bench.accept(MODEL)
    bench.advance()
    for action, words in (("status", "failed"), ("explain", "golden inputs"), ("history", "failed")):
        assert tell(config, action, as_json=False) == 0
        assert words in capsys.readouterr().out
        tell(config, action, as_json=True)
        content = json.loads(capsys.readouterr().out)
        assert words in json.dumps(content)


@pytest.mark.parametrize(
    ("ledger", "why"),
    [
        (Ledger(canceled=True), "canceled on site"),
        (Ledger(held="waits for its window"), "waits for its window"),
    ],
)
def test_what_must_not_be_fetched_is_not_explained_as_being_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ledger: Ledger, why: str
) -> None:
    (tmp_path / "agent.toml").write_text(SETTINGS)
    bench = Bench(tmp_path / "data" / "updates")
    bench.executor.begin(MODEL.target)
    ledgers.save(ledgers.place_of(bench.folder / "downloads", MODEL.target.sha256), ledger)
    tell(load(tmp_path / "agent.toml"), "explain", as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["code"], found["detail"]) == ("held", why)


def request(device: str, nonce: str = NONCE) -> bytes:
    asked = {"format": "argan-receipt/1", "device": device, "nonce": nonce, "expires_ms": 1}
    return json.dumps(asked).encode()


def test_the_last_bundle_that_asks_this_device_is_whose_receipt_is_written(tmp_path: Path) -> None:
    with pytest.raises(UpdateBroken, match="fleet bundle export"):
        receipts.wanted(tmp_path)
    own = write_bundle(tmp_path / "own.tar", {"receipt.json": request("gw-7")})
    receipts.remember(tmp_path, own, "gw-7", 1)
    assert receipts.wanted(tmp_path) == NONCE
    assert receipts.asks(tmp_path, own)
    for number, content in enumerate(
        ({}, {"receipt.json": request("gw-8", "m" * 64)}, {"receipt.json": b"{" * 4000},
         {"receipt.json": request("gw-7", "../..")})
    ):  # fmt: skip
        other = write_bundle(tmp_path / f"{number}.tar", content)
        receipts.remember(tmp_path, other, "gw-7", 2)
        assert receipts.wanted(tmp_path) == NONCE
        assert not receipts.asks(tmp_path, other)
    assert records.load(tmp_path, records.Wanted).taken_wall_ms == 1


def test_a_clock_in_doubt_is_said_with_every_entry() -> None:
    doubtful = HandClock(wall_ms=0)
    entry = Entry(target=MODEL.target, state=S.COMMITTED, since_wall_ms=0)
    noted = history.noted(History(), entry, doubtful.wall_ms(), doubtful.state())
    assert noted.entries[0].clock is ClockState.UNTRUSTED


def test_a_receipt_that_cannot_be_written_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text(SETTINGS)
    config = load(tmp_path / "agent.toml")
    stick = write_bundle(tmp_path / "stick.tar", {"receipt.json": request("gw-7")})
    receipts.remember(tmp_path / "data" / "updates", stick, "gw-7", 1)
    monkeypatch.setattr(receipt_writing, "_receipt", lambda _config: ("a.b.c", True))
    receipt_writing.write_beside(config, stick, tmp_path / "not" / "there")
    assert "edge-agent update receipt --out FILE" in capsys.readouterr().err
    receipt_writing.write_beside(config, stick, None)
    assert (tmp_path / "stick.tar.receipt").read_text() == "a.b.c\n"
    assert "bring it back: fleet receipt import" in capsys.readouterr().out


def test_what_a_later_version_wrote_costs_the_version_before_no_more_than_what_it_cannot_know(
    tmp_path: Path,
) -> None:
    """The agent that is taken back finds the journal of the one that followed it."""
    bench = Bench(tmp_path)
    committed(bench)
    order = OrderedVersion(
        kind=MODEL.target.description.kind, name="x", version="1", release=1, sha256="a" * 64
    )
    bench.executor.looked(Looked(ordered=(order,)))
    before = bench.executor.journal, bench.executor.installed, bench.executor.history
    for name in (records.JOURNAL, records.INSTALLED, records.HISTORY):
        content = json.loads((tmp_path / name).read_bytes())
        (tmp_path / name).write_text(json.dumps(with_more(content)), encoding="utf-8")
    after = bench.reopened()
    assert (after.journal, after.installed, after.history) == before
    content = json.loads((tmp_path / records.JOURNAL).read_bytes())
    content["looked"]["ordered"][0]["kind"] = "firmware"
    (tmp_path / records.JOURNAL).write_text(json.dumps(content), encoding="utf-8")
    after = bench.reopened()
    assert (after.journal.entries, after.journal.looked) == (before[0].entries, Looked())


def test_what_a_later_version_adds_to_ledger_and_handover_is_passed_over(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    ledger, file = Ledger(canceled=True), ledgers.place_of(downloads, "a" * 64)
    ledgers.save(file, ledger)
    handover = Handover(sha256="a" * 64, phase=Phase.INSTALLED, before="A", boot="b")
    record.save(tmp_path, handover)
    for each in (file, tmp_path / record.RECORD):
        each.write_text(json.dumps(json.loads(each.read_bytes()) | {"later": 1}), encoding="utf-8")
    assert ledgers.load(file) == ledger
    assert record.load(tmp_path) == handover


def with_more(content: object) -> object:
    if isinstance(content, list):
        return [with_more(each) for each in content]
    if isinstance(content, dict):
        return {name: with_more(each) for name, each in content.items()} | {"later": {"more": [1]}}
    return content
