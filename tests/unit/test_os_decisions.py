"""Which image a board takes, when it may be restarted for one, and what its tools' words mean."""

import asyncio
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.config import Os, load
from edge_agent.errors import ConfigError, UpdaterRefused, UpdateUnfit
from edge_agent.updates import board
from edge_agent.updates.osimage import decision, swupdate, tool
from edge_agent.updates.osimage.decision import PATIENCE_S, RESTARTS, hindrance, judge_boot, judge_health
from edge_agent.updates.osimage.record import Handover, Phase
from edge_agent.updates.osimage.tool import Ran
from edge_agent.updates.probation import Verdict
from fleet_protocol.errors import TargetError
from fleet_protocol.targets import (
    MAX_IMAGE,
    Description,
    ImageFormat,
    Kind,
    Requirements,
    Target,
    custom_of,
    parse,
)
from fleet_signing import os_images
from fleet_signing.errors import ArtifactError

NIGHT = Os(restart="window", windows=("22:00-06:00",))
MIDNIGHT, NOON = (datetime(2026, 11, 24, hour, tzinfo=UTC) for hour in (0, 12))
RAUC = b"hsqs" + b"\0" * 100
SWU = b"070702" + b"\0" * 100


def described(image: ImageFormat | None, *profiles: str) -> Description:
    requires = Requirements(profiles=profiles, image=image)
    return Description(kind=Kind.OS, name="gateway_os", version="1.2", release=2, requires=requires)


def handover(phase: Phase) -> Handover:
    return Handover(sha256="0" * 64, phase=phase, before="A", boot="b0")


@pytest.mark.parametrize(
    ("phase", "booted", "boot", "expected"),
    [
        (Phase.INSTALLING, "A", "b0", decision.Next.INSTALL),
        (Phase.INSTALLING, "A", "b1", decision.Next.INSTALL),
        (Phase.INSTALLING, "B", "b1", decision.Next.ARRIVED),
        (Phase.INSTALLED, "A", "b0", decision.Next.RESTART),
        (Phase.INSTALLED, "A", "b1", decision.Next.FELL_BACK),
        (Phase.INSTALLED, "B", "b1", decision.Next.ARRIVED),
    ],
)
def test_what_runs_after_a_start_says_what_became_of_an_image(
    phase: Phase, booted: str, boot: str, expected: decision.Next
) -> None:
    assert judge_boot(handover(phase), booted, boot) is expected


def test_the_board_is_restarted_in_its_window_and_by_an_honest_clock_alone() -> None:
    assert hindrance(NIGHT, 0, MIDNIGHT) == ""
    assert "22:00-06:00" in hindrance(NIGHT, 0, NOON)
    assert "clock cannot be believed" in hindrance(NIGHT, 0, None)
    assert "by hand" in hindrance(NIGHT, RESTARTS, MIDNIGHT)
    assert "somebody" in hindrance(Os(), 0, MIDNIGHT)


def test_only_what_did_not_ail_the_board_before_counts_against_a_new_system() -> None:
    assert judge_health({"link.down"}, ["link.down"], 60.0, 60.0) == (Verdict.PASSED, "")
    assert judge_health({"update.failed"}, [], 60.0, 60.0) == (Verdict.PASSED, "")
    assert judge_health(set(), [], 59.0, 60.0)[0] is Verdict.WAIT
    for spent_s, verdict in ((60.0, Verdict.WAIT), (60.0 + PATIENCE_S, Verdict.FAILED)):
        assert judge_health({"link.down"}, [], spent_s, 60.0)[0] is verdict


@pytest.mark.parametrize(
    ("status", "line", "is_refused"),
    [
        (0, "[INFO ] : SWUPDATE successful ! SWUPDATE successful !", False),
        (1, "[INFO ] : SWUPDATE successful ! SWUPDATE successful !", False),
        (0, "[INFO ] : SWUPDATE running :  Installation in progress", True),
        (1, "[ERROR] : SWUPDATE failed [1] Installation failed !", True),
    ],
)
def test_whether_swupdate_succeeded_is_in_its_words_and_not_in_its_exit_status(
    status: int, line: str, *, is_refused: bool
) -> None:
    ran = Ran(status, "", (line,))
    if not is_refused:
        return swupdate.require(ran)
    with pytest.raises(UpdaterRefused, match="SWUpdate says"):
        swupdate.require(ran)
    return None


def test_a_tool_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = f"(while :; do touch {alive}; sleep 0.05; done) & wait"
    with pytest.raises(UpdateUnfit, match=r"longer than 0\.5 s"):
        asyncio.run(tool.run(("sh", "-c", script), 0.5))
    alive.unlink()
    asyncio.run(asyncio.sleep(0.3))
    assert not alive.exists()


def test_a_tool_that_is_not_there_is_told() -> None:
    with pytest.raises(UpdateUnfit, match="no-such-updater cannot be started: No such file"):
        asyncio.run(tool.run(("no-such-updater",)))


@pytest.mark.parametrize(
    ("image", "profile", "sentence"),
    [
        (ImageFormat.RAUC, "raspberry-pi-5-rauc", ""),
        (ImageFormat.SWUPDATE, "raspberry-pi-5-rauc", "takes images for rauc"),
        (ImageFormat.RAUC, "raspberry-pi-5", "takes none"),
        (ImageFormat.RAUC, "somebodys-own", "takes none"),
    ],
)
def test_a_board_is_given_no_image_that_its_updater_cannot_take(
    image: ImageFormat, profile: str, sentence: str
) -> None:
    found = board.problems(described(image), profile)
    assert (sentence in " ".join(found)) if sentence else not found


def test_an_image_that_the_disk_cannot_hold_is_refused_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target("os/gateway_os/2.img", 200 << 20, "0" * 64, described(ImageFormat.RAUC))
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=250 << 20))
    (text,) = board.lacking_room(target, tmp_path)
    assert text == "it has 200 MiB, and 250 MiB are free; at least 264 have to be"
    (tmp_path / "downloads").mkdir()
    part = tmp_path / "downloads" / f"{target.sha256}.part"
    part.touch()
    os.truncate(part, 20 << 20)
    assert board.lacking_room(target, tmp_path) == []


def test_an_operating_system_without_an_updater_is_no_target_and_a_large_one_is() -> None:
    def target(image: ImageFormat | None, length: int) -> Target:
        return parse("os/gateway_os/2.img", length, {"sha256": "0" * 64}, custom_of(described(image)))

    assert target(ImageFormat.RAUC, MAX_IMAGE).length == MAX_IMAGE
    with pytest.raises(TargetError, match="which updater"):
        target(None, 1)
    with pytest.raises(TargetError, match="at most"):
        target(ImageFormat.RAUC, MAX_IMAGE + 1)


def test_an_image_is_known_by_how_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "image"
    for content, image in ((RAUC, ImageFormat.RAUC), (SWU, ImageFormat.SWUPDATE)):
        file.write_bytes(content)
        made = os_images.of_file(file, "gateway_os", "1.2", 2, ())
        assert made.target.description.requires.image is image
        assert b"".join(made.parts(7)) == content
    file.write_bytes(b"PK" + b"\0" * 100)
    with pytest.raises(ArtifactError, match="neither a RAUC bundle"):
        os_images.of_file(file, "gateway_os", "1.2", 2, ())


@pytest.mark.parametrize(
    ("name", "profiles", "words"),
    [
        ("gateway_os", ["generic-x86-64-swupdate"], "takes images for swupdate"),
        ("gateway_os", ["intel-nuc"], "takes none"),
        ("gateway_os", ["no-such-board"], "no firmware profile is named"),
        ("Gateway OS", ["raspberry-pi-5-rauc"], "cannot be used"),
    ],
)
def test_who_publishes_an_image_for_the_wrong_boards_is_told_at_once(
    tmp_path: Path, name: str, profiles: list[str], words: str
) -> None:
    file = tmp_path / "image"
    file.write_bytes(RAUC)
    with pytest.raises(ArtifactError, match=words):
        os_images.of_file(file, name, "1.2", 2, profiles)


def test_a_window_policy_without_a_window_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    start = (
        'device = "gw-7"\ndata = "d"\n[broker]\nhost = "h"\nca = "a"\ncertificate = "c"\nkey = "k"\n[os]\n'
    )
    file.write_text(start + 'restart = "window"\n')
    with pytest.raises(ConfigError, match="needs 'windows'"):
        load(file)
    file.write_text(start + 'restart = "window"\nwindows = ["02:00-04:00"]\n')
    assert load(file).os.windows == ("02:00-04:00",)
