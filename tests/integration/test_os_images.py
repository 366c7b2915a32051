"""Images of the operating system on boards with real updaters: RAUC and SWUpdate as Debian ships them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.config import Os, load
from edge_agent.service.doctor import Finding, findings
from edge_agent.updates.executor import ATTEMPTS
from edge_agent.updates.osimage import record, tool
from edge_agent.updates.osimage.decision import PATIENCE_S, RESTARTS
from fleet_protocol.messages import UpdateReport
from fleet_protocol.update_states import UpdateState
from fleet_signing import os_images
from fleet_signing.artifacts import Artifact
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import TestAuthority
from tests.support.boards import SIZE, RaucBoard, SwupdateBoard, rauc_board, swupdate_board
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.os_site import Site
from tests.support.power import Disk, PowerCut
from tests.support.update_server import UpdateServer
from tests.support.updating import Yard
from tests.support.waiting import wait_until

S = UpdateState
NEW = os.urandom(SIZE)
ASKED = "waits for somebody to restart the board"
Board = RaucBoard | SwupdateBoard


@pytest.fixture(params=["rauc", "swupdate"])
def board(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    switched_on = rauc_board if request.param == "rauc" else swupdate_board
    with switched_on(tmp_path / "board", monkeypatch) as there:
        yield there


@pytest.fixture
def rauc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RaucBoard]:
    with rauc_board(tmp_path / "board", monkeypatch) as there:
        yield there


def restarting(board: Board, script: str = "exit 0") -> Os:
    """May restart the board at any hour; every restart is a line in ``restarts``."""
    file = board.folder / "restart"
    file.write_text(f"#!/bin/sh\necho now >>{board.folder}/restarts\n{script}\n")
    file.chmod(0o755)
    return Os(restart="window", windows=("00:00-00:00",), restart_command=(str(file),))


def restarts(board: Board) -> int:
    file = board.folder / "restarts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def installed(board: Board, settings: Os | None = None) -> Site:
    """A site whose board has written the new system into its other copy and has not started it."""
    site = Site(board, settings)
    site.accept(board.image(NEW))
    site.until(S.ACTIVATING, ASKED if settings is None else "told to restart")
    return site


def is_marked_good(board: Board) -> bool:
    if isinstance(board, RaucBoard):
        return board.state("B") == "good"
    environment = board.environment()
    return (environment["ustate"], environment["upgrade_available"]) == ("0", "0")


def test_an_image_is_written_started_watched_and_kept(board: Board) -> None:
    site = installed(board)
    assert board.content("B").startswith(NEW)
    assert (board.runs, board.starts_next(), site.installed) == ("A", "B", 0)
    site.while_true(lambda: site.entry.state is S.ACTIVATING, turns=3)  # nobody is surprised
    assert not is_marked_good(board)
    site.restart()
    assert board.runs == "B"
    site.until(S.PROBATION, "is on probation")
    assert site.installed == 2
    assert not is_marked_good(board)
    site.until(S.COMMITTED)
    assert is_marked_good(board)
    assert board.starts_next() == "B"
    site.executor.sweep()
    assert not site.store.image(site.entry.target.sha256).exists()  # the board has it, twice is too much


def test_an_image_that_the_boards_own_key_did_not_sign_is_refused_by_the_tool(board: Board) -> None:
    before = board.content("B")
    site = Site(board)
    target = site.accept(board.image(NEW, foreign=True))
    site.until(S.FAILED, "says:")
    assert board.content("B") == before
    assert board.starts_next() == "A"
    assert [each.sha256 for each in site.executor.installed.failed] == [target.sha256]


def test_a_system_that_does_not_start_is_left_by_the_bootloader_and_not_tried_again(board: Board) -> None:
    site = installed(board)
    site.restart(vain=True)
    site.until(S.ROLLED_BACK, "still runs what it ran before")
    assert (board.runs, board.starts_next(), site.installed) == ("A", "A", 0)
    assert [each.release for each in site.executor.installed.failed] == [2]


def test_a_system_under_which_the_board_ails_is_left_again(board: Board) -> None:
    site = installed(board, restarting(board))
    site.codes = {"sensor.timeout"}
    site.restart()
    site.until(S.PROBATION, "raised under the new system: sensor.timeout")
    site.mono_ms += int(PATIENCE_S * 1000)
    site.until(S.ROLLING_BACK, "sensor.timeout; the board is told to restart")
    assert restarts(board) == 2
    assert board.starts_next() == "A"
    site.restart()
    site.until(S.ROLLED_BACK, "sensor.timeout")
    assert (board.runs, site.installed) == ("A", 0)
    site.restart()
    assert board.runs == "A"


def test_trouble_that_passes_keeps_nobody_from_the_new_system(rauc: RaucBoard) -> None:
    site = installed(rauc)
    site.codes = {"link.down"}
    site.restart()
    site.until(S.PROBATION, "link.down")
    site.mono_ms += 120_000
    site.until(S.PROBATION, "link.down")
    site.codes = {"update.failed"}
    site.until(S.COMMITTED)


def test_what_ails_the_board_while_it_waits_for_its_restart_is_not_held_against_the_new_system(
    rauc: RaucBoard,
) -> None:
    site = installed(rauc)
    site.codes = {"sensor.timeout"}
    site.turn()
    site.restart()
    site.until(S.COMMITTED)


def test_an_agent_that_ends_again_and_again_under_the_new_system_gives_it_up(rauc: RaucBoard) -> None:
    site = installed(rauc)
    site.restart()
    site.until(S.PROBATION)
    for _ in range(ATTEMPTS):
        site.stop()
        site.start()
    site.until(S.ROLLING_BACK, f"begun {ATTEMPTS} times without an end; {ASKED}")
    site.restart()
    site.until(S.ROLLED_BACK)
    assert rauc.runs == "A"


def test_agents_that_end_while_the_board_waits_for_its_restart_are_no_failure(rauc: RaucBoard) -> None:
    site = installed(rauc)
    for _ in range(ATTEMPTS + 1):
        site.stop()
        site.start()
        site.turn()
    site.until(S.ACTIVATING, ASKED)


def test_a_board_that_does_not_restart_is_told_a_few_times_and_then_a_person_is(rauc: RaucBoard) -> None:
    site = installed(rauc, restarting(rauc))
    for _ in range(RESTARTS + 2):
        site.mono_ms += 700_000
        site.turn()
    site.until(S.ACTIVATING, "restart it by hand")
    assert restarts(rauc) == RESTARTS
    site.restart()
    site.until(S.COMMITTED)


def test_what_the_restart_command_says_is_told(rauc: RaucBoard) -> None:
    site = Site(rauc, restarting(rauc, "echo no seat >&2; exit 1"))
    site.accept(rauc.image(NEW))
    site.until(S.ACTIVATING, "cannot be restarted: no seat")
    site.settings = Os(restart="window", windows=("00:00-00:00",), restart_command=("no-such-command",))
    site.stop()
    site.start()
    site.until(S.ACTIVATING, "no-such-command cannot be started")


def test_a_second_installation_is_not_begun_beside_one_that_still_runs(rauc: RaucBoard) -> None:
    site = Site(rauc)
    site.folder.mkdir(parents=True)
    with tool.alone(site.folder / "os.lock"):
        site.accept(rauc.image(NEW))
        site.until(S.ACTIVATING, "still under way")
        assert rauc.content("B") != NEW
    site.until(S.ACTIVATING, ASKED)


def test_an_agent_that_is_back_waits_for_what_the_tool_still_does(rauc: RaucBoard) -> None:
    site = writing(rauc)
    site.stop()
    site.start()
    site.until(S.ACTIVATING, "already processing")
    rauc.let_go()
    site.until(S.ACTIVATING, ASKED)
    assert rauc.starts_next() == "B"


def test_a_power_cut_while_the_tool_writes_costs_no_more_than_writing_again(rauc: RaucBoard) -> None:
    site = writing(rauc)
    site.cut()
    assert rauc.runs == "A"
    rauc.let_go()
    site.until(S.ACTIVATING, ASKED)
    site.restart()
    site.until(S.COMMITTED)


def test_a_power_cut_after_the_tools_end_and_before_it_is_written_down_is_seen_by_what_runs(
    rauc: RaucBoard,
) -> None:
    site = writing(rauc)
    rauc.let_go()
    wait_until(lambda: rauc.starts_next() == "B")
    site.cut()
    assert rauc.runs == "B"
    site.until(S.COMMITTED)


def writing(rauc: RaucBoard) -> Site:
    """A site whose tool has written the new system, and has not switched to it yet."""
    rauc.hold()
    site = Site(rauc)
    site.accept(rauc.image(NEW))

    def written() -> bool:
        site.turn()
        return rauc.content("B").startswith(NEW)

    wait_until(written)
    return site


def test_after_a_power_cut_anywhere_the_board_runs_one_of_the_two_and_the_agent_knows_which(
    rauc: RaucBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, board = Site(rauc), rauc
    site.folder.mkdir(parents=True, exist_ok=True)
    for release, cut_at in enumerate(range(1, 80, 16), 2):
        content = os.urandom(SIZE)
        site.accept(board.image(content), release)
        disk, copy = Disk(site.folder), "B" if board.runs == "A" else "A"
        try:
            with disk.watched(monkeypatch, cut_at):
                _carry_out(site)
        except PowerCut:
            disk.lose() if release % 2 else disk.keep()
            site.cut()
        _carry_out(site)
        if site.entry.state is S.COMMITTED:
            assert (board.runs, site.installed) == (copy, release)
            assert board.content(copy).startswith(content)
        else:
            assert site.entry.state is S.FAILED or board.runs != copy
        assert board.starts_next() == board.runs


def _carry_out(site: Site) -> None:
    """Until its end; the board is restarted as soon as it asks for it."""
    for _turn in range(2000):
        site.turn()
        if site.entry.is_over:
            return
        if ASKED in site.entry.detail:
            site.restart()
    raise AssertionError(f"{site.entry.state}: {site.entry.detail}")


def test_without_its_record_an_update_of_the_system_is_not_kept(rauc: RaucBoard) -> None:
    site = installed(rauc)
    site.restart()
    site.until(S.PROBATION)
    (site.folder / record.RECORD).write_bytes(b"{")
    site.until(S.ROLLED_BACK, "record of the image is gone")
    assert not is_marked_good(rauc)


def test_an_agent_that_is_ordered_an_image_hands_it_over_and_tells_how_it_went(
    rauc: RaucBoard,
    tmp_path: Path,
    authority: TestAuthority,
    broker: TestBroker,
    consumer: Consumer,
    start_agent: Callable[..., AgentProcess],
) -> None:
    yard = Yard(tmp_path / "gw-7", authority)
    file = rauc.image(NEW)
    made = os_images.of_file(file, "gateway_os", "1.2", 2, ["raspberry-pi-5-rauc"])
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as yard.server:
        yard.repositories.direct(yard.device)
        rows = recording(tmp_path / "flow.csv", 60_000)
        agent = start_agent(yard.device, broker.port, replay_section(rows) + _updates(yard), run=False)
        agent.config.write_text(agent.config.read_text().replace('"simulated"', '"raspberry-pi-5-rauc"'))
        agent.start()
        yard.order(Artifact(made.target, file.read_bytes()))

        def told(state: str, detail: str = "") -> UpdateReport | None:
            reported = consumer.reported.get(yard.device)
            found = [each for each in reported.updates if each.name == "gateway_os"] if reported else []
            return next((each for each in found if each.state == state and detail in each.detail), None)

        waiting = wait_until(lambda: told("activating", ASKED), "it waits for its restart", 60)
        assert (waiting.kind, waiting.installed) == ("os", 0)
        rauc.restart()
        kept = wait_until(lambda: told("committed"), "the new system is kept", 60)
        assert kept.installed == 2
        assert rauc.state("B") == "good"


def _updates(yard: Yard) -> str:
    assert yard.server
    return f"""
[updates]
url = "{yard.server.url}"
image_root = "{yard.image_root}"
director_root = "{yard.director_root}"
poll_interval_s = 1.0
probation_s = 0.5
retry_cap_s = 1.0
"""


@pytest.mark.parametrize("named", ["raspberry-pi-5-rauc", "generic-x86-64-swupdate"])
def test_the_doctor_asks_the_boards_updater(
    named: str, tmp_path: Path, authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched_on = rauc_board if named.endswith("rauc") else swupdate_board
    issued = authority.issue("gw-71", folder=tmp_path / "tls")
    agent = AgentProcess(tmp_path / "gw-71", issued, 1, "")
    agent.config.write_text(agent.config.read_text().replace('"simulated"', f'"{named}"'))
    with switched_on(tmp_path / "board", monkeypatch):
        assert "answers; " in _of_os(agent.config).text
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = _of_os(agent.config)
    assert not finding.ok
    assert "cannot be started: No such file" in finding.text


def _of_os(config: Path) -> Finding:
    (finding,) = [each for each in findings(load(config)) if each.code == "os"]
    return finding
