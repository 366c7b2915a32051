"""The agent goes by its firmware profile, and what it was told beyond it is obeyed and said."""

import asyncio
import ctypes
import dataclasses
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.allowance import FLUSH_INTERVAL_S, MIB, allowance
from edge_agent.clock import BUILD_MS, Clock
from edge_agent.config import Broker, Config, Model, Spool
from edge_agent.service.board import (
    Board,
    differences,
    look,
    used_disk_bytes,
    used_memory_mib,
)
from edge_agent.service.health import HealthBoard
from edge_agent.service.limits import ARTIFACTS, LimitWatch, overuse
from edge_agent.timesync import is_synchronized
from firmware_profiles.schema import load
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import ClockState
from tests.support.drafts import BOOT, HandClock

NOWHERE = Broker(host="127.0.0.1", port=1, ca=Path("ca"), certificate=Path("cert"), key=Path("key"))
ZERO = "raspberry-pi-zero-2-w"


def config(profile: str, folder: Path = Path("data"), **options: object) -> Config:
    given = {"device": "gw-1", "data": folder, "broker": NOWHERE, "profile": profile, **options}
    return msgspec.convert(given, Config, dec_hook=lambda _kind, value: value)


class TestAllowance:
    def test_what_is_not_configured_is_the_profiles(self) -> None:
        allowed = allowance(config(ZERO))
        assert (allowed.spool_bytes, allowed.flush_interval_s) == (128 * MIB, 10.0)
        assert (allowed.excesses, allowed.unknown) == ((), "")

    @pytest.mark.parametrize("profile", ["generic", "simulated"])
    def test_without_a_described_board_it_is_as_it_was(self, profile: str) -> None:
        allowed = allowance(config(profile, spool=Spool(flush_interval_s=0.05)))
        assert (allowed.spool_bytes, allowed.flush_interval_s) == (64 * MIB, 0.05)
        assert allowance(config(profile)).flush_interval_s == FLUSH_INTERVAL_S
        assert allowed.excesses == ()

    def test_what_is_configured_beyond_it_is_obeyed_and_told(self) -> None:
        spool = Spool(max_bytes=129 * MIB, flush_interval_s=0.5)
        models = [Model(folder=Path("leak"), runtime=Runtime.OPENVINO)]
        allowed = allowance(config(ZERO, spool=spool, models=models))
        assert (allowed.spool_bytes, allowed.flush_interval_s) == (129 * MIB, 0.5)
        assert [excess.subject for excess in allowed.excesses] == ["spool", "flush", "leak"]
        assert "the profile allows 128 MiB" in allowed.excesses[0].text
        assert all(excess.next_step for excess in allowed.excesses)

    def test_what_is_configured_within_it_is_nothing_to_tell(self) -> None:
        spool = Spool(max_bytes=128 * MIB, flush_interval_s=10.0)
        models = [Model(folder=Path("leak"), runtime=Runtime.LITERT), Model(folder=Path("flow"))]
        assert allowance(config(ZERO, spool=spool, models=models)).excesses == ()

    def test_an_unknown_profile_is_the_generic_one(self) -> None:
        allowed = allowance(config("pi \u00ab9\u00bb"))
        assert allowed.profile is load("generic")
        assert "there are: generic, " in allowed.unknown


class TestClock:
    def clock(self, *, synchronized: Callable[[], bool] = lambda: False, wall_ms: int | None = None) -> Clock:
        self.wall_ms = BUILD_MS + 1_000_000 if wall_ms is None else wall_ms
        self.mono_ms = 60_000
        return Clock(
            BOOT,
            may_stop=True,
            wall_ns=lambda: self.wall_ms * 1_000_000,
            mono_ns=lambda: self.mono_ms * 1_000_000,
            synchronized=synchronized,
        )

    def test_a_believable_time_is_not_believed_before_it_was_set(self) -> None:
        clock = self.clock()
        assert clock.state() is ClockState.UNTRUSTED
        assert "nobody has set it" in clock.doubt()
        self.wall_ms, self.mono_ms = self.wall_ms + 86_400_000, self.mono_ms + 86_400_000
        assert clock.state() is ClockState.UNTRUSTED  # it went on, and nobody set it

    @pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
    def test_a_step_to_a_believable_time_is_believed_from_then_on(self, step_ms: int) -> None:
        clock = self.clock(wall_ms=BUILD_MS + 86_400_000)
        assert clock.jump_ms() == 0
        self.wall_ms += step_ms
        assert clock.state() is ClockState.TRUSTED
        assert clock.jump_ms() == step_ms
        assert clock.state() is ClockState.TRUSTED

    def test_a_step_to_an_unbelievable_time_is_not(self) -> None:
        clock = self.clock()
        self.wall_ms = 5_000
        assert clock.state() is ClockState.UNTRUSTED
        assert "before this software" in clock.doubt()

    def test_a_time_service_is_believed_also_after_it_fell_silent(self) -> None:
        said = [False, True, False]
        clock = self.clock(synchronized=lambda: said.pop(0))
        states = [clock.state() for _turn in range(4)]
        assert states == [ClockState.UNTRUSTED, *[ClockState.TRUSTED] * 3]

    def test_a_clock_that_cannot_stop_is_believed_as_before(self) -> None:
        assert HandClock().state() is ClockState.TRUSTED
        assert HandClock().doubt() == ""

    def test_the_kernels_word_is_read_from_the_right_place(self) -> None:
        timex = Timex()
        assert ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) >= 0
        assert 9_000 <= timex.tick <= 11_000  # microseconds between ticks: the layout is right
        assert is_synchronized() == (timex.maxerror < 16_000_000)


class Timex(ctypes.Structure):
    """``struct timex`` up to the length of a tick, as adjtimex(2) has it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("room", ctypes.c_long * 32),
    )


def board(**changes: Any) -> Board:
    usual = Board(
        machine="aarch64",
        cores=4,
        memory_mib=420,
        available_mib=300,
        has_rtc=False,
        has_watchdog=True,
    )
    return dataclasses.replace(usual, **changes)


class TestBoard:
    def test_this_machine_is_seen(self) -> None:
        found = look()
        assert found.machine == os.uname().machine
        assert found.cores == os.cpu_count()
        assert 0 < found.available_mib <= found.memory_mib
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
        assert abs(found.memory_mib - pages) <= 1

    def test_a_board_as_promised_lacks_nothing(self) -> None:
        assert differences(board(), load(ZERO)) == []

    @pytest.mark.parametrize(
        ("changes", "subject"),
        [
            ({"machine": "armv7l"}, "machine"),
            ({"cores": 3}, "cores"),
            ({"memory_mib": 383}, "board memory"),
            ({"has_watchdog": False}, "watchdog"),
        ],
    )
    def test_each_difference_is_told(self, changes: dict[str, object], subject: str) -> None:
        (found,) = differences(board(**changes), load(ZERO))
        assert found.subject == subject
        assert found.next_step

    def test_a_promised_clock_is_missed(self) -> None:
        (found,) = differences(board(machine="x86_64", memory_mib=8000), load("generic-x86-64"))
        assert found.subject == "hardware clock"
        assert differences(board(machine="riscv64"), load("generic")) == []

    def test_what_the_agent_takes_is_measured(self, tmp_path: Path) -> None:
        before = used_memory_mib()
        block = bytearray(os.urandom(1) * (64 * MIB))
        assert 55 <= used_memory_mib() - before <= 80
        del block
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "file").write_bytes(bytes(1000))
        (tmp_path / "link").symlink_to("/nowhere")
        assert 1000 <= used_disk_bytes(tmp_path) < 1100
        assert used_disk_bytes(tmp_path / "none") == 0


def test_overuse_is_what_is_above_the_limit() -> None:
    limits = load(ZERO).limits
    assert list(overuse(160, 128, limits)) == []
    assert [each.subject for each in overuse(161, 129, limits)] == ["memory", "artifacts"]


class TestLimitWatch:
    def watching(self, told: Config, scenario: Callable[[HealthBoard], Coroutine[None, None, None]]) -> None:
        async def run() -> None:
            health = HealthBoard(HandClock())
            watch = asyncio.create_task(LimitWatch(allowance(told), told.data, health, 0.01).run())
            async with asyncio.timeout(10):
                await changed(health)
                await scenario(health)
            watch.cancel()

        asyncio.run(run())

    def test_an_unknown_profile_raises_its_code_and_no_other(self, tmp_path: Path) -> None:
        async def scenario(health: HealthBoard) -> None:
            report = health.reports()[0]
            assert report.code == "profile.unknown"
            assert report.detail.startswith("no firmware profile is named 'pi-9'")
            # The process that runs the tests may be larger than any agent.
            assert all("memory" in other.detail for other in health.reports()[1:])

        self.watching(config("pi-9", tmp_path), scenario)

    def test_artifacts_beyond_the_profile_are_told_until_they_are_gone(self, tmp_path: Path) -> None:
        file = tmp_path / ARTIFACTS / "artifact"
        file.parent.mkdir()
        with file.open("wb") as sparse:
            sparse.truncate(300 * MIB)

        async def scenario(health: HealthBoard) -> None:
            assert told(health) == ["artifacts: they take 300 MiB on disk, the profile allows 256 MiB"]
            file.unlink()
            while told(health):
                await changed(health)

        self.watching(config("simulated", tmp_path), scenario)

    def test_a_board_that_is_another_is_told(self, tmp_path: Path) -> None:
        async def scenario(health: HealthBoard) -> None:
            assert {report.code for report in health.reports()} == {"profile.exceeded"}
            assert any("machine: x86_64, the profile is for" in report.detail for report in health.reports())

        wrong = "jetson-orin-nano" if look().machine == "x86_64" else "generic-x86-64"
        self.watching(config(wrong, tmp_path), scenario)


def told(health: HealthBoard) -> list[str]:
    """What is told of artifacts; the process that runs the tests may itself be larger than any agent."""
    return [report.detail for report in health.reports() if "artifacts" in report.detail]


async def changed(health: HealthBoard) -> None:
    await health.changed.wait()
    health.changed.clear()
