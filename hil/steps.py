"""Doing the steps of a scenario, one function a step."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from fleet_protocol.texts import _
from hil import releases
from hil.approver import Approver
from hil.errors import StepFailed
from hil.installation import REPOSITORY, Installation, Post
from hil.relay import Conditions
from hil.scenario import (
    AnyStep,
    Approve,
    Await,
    Clock,
    CutPower,
    Disk,
    Fleet,
    Freeze,
    Kill,
    Link,
    Release,
    Sensor,
    Serve,
    Start,
    Steal,
    Thaw,
)
from hil.sights import Sight
from hil.thief import Thief

RESTART_S: Final = 60.0

_BALLAST: Final = "ballast"


class Doer:
    """Does steps on one installation."""

    def __init__(self, installation: Installation, sight: Sight, say: Callable[[str], None]) -> None:
        self._installation = installation
        self._sight = sight
        self._say = say

    def do(self, step: AnyStep) -> None:
        """Do one step; returns when it is done.

        Raises:
            StepFailed: it did not bring what the scenario asks for.
            RigError: it cannot be done on this rig.
        """
        how: Callable[[Any], None] = getattr(self, f"_{type(step).__name__.lower()}")
        how(step)

    def _kill(self, step: Kill) -> None:
        if step.what == "agent":
            post = self._post(step.device)
            post.held = step.hold
            post.agent.kill()
            post.kills_ms.append(_now_ms())
            return
        before = self._installation.pid_of(step.what)
        os.kill(before, signal.SIGKILL)
        if step.what == "server":
            self._installation.server.stop()
            self._installation.start_server()
            return
        self._installation.wait(
            lambda: self._runs_anew(step.what, before),
            RESTART_S,
            _("{part} runs again").format(part=step.what),
        )

    def _runs_anew(self, part: str, before: int) -> bool:
        try:
            return self._installation.pid_of(part) != before
        except StepFailed:
            return False

    def _cutpower(self, step: CutPower) -> None:
        post = self._post(step.device)
        post.held = True
        for place in step.at:
            lost = self._installation.cut_power(post, place, step.within_s)
            self._say(_("    cut instead of rename {place}: {file}").format(place=place, file=lost or "-"))
        post.held = False

    def _start(self, step: Start) -> None:
        post = self._post(step.device)
        post.held = False
        post.agent.mend()

    def _freeze(self, step: Freeze) -> None:
        os.kill(self._pid(step.what, step.device), signal.SIGSTOP)

    def _thaw(self, step: Thaw) -> None:
        os.kill(self._pid(step.what, step.device), signal.SIGCONT)

    def _link(self, step: Link) -> None:
        self._installation.rig.set_link(
            Conditions(step.delay_ms, step.loss, step.reorder, step.rate_kbit, step.cut)
        )

    def _sensor(self, step: Sensor) -> None:
        self._installation.set_fault(self._post(step.device).unit, step.fault)

    def _disk(self, step: Disk) -> None:
        ballast = self._post(step.device).data / _BALLAST
        if not step.full:
            ballast.unlink()
            return
        with ballast.open("wb", buffering=0) as file:
            _fill(file.write)

    def _clock(self, step: Clock) -> None:
        post = self._post(step.device)
        post.kills_ms.append(_now_ms())
        self._installation.set_clock(post, step.at)

    def _fleet(self, step: Fleet) -> None:
        places = {
            "{keys}": str(self._installation.keys),
            "{out}": str(self._installation.folder),
            "{repository}": str(REPOSITORY),
        }
        arguments = [_filled(argument, places) for argument in step.arguments]
        done = self._installation.fleet(*arguments, "--data", str(self._installation.server_data))
        said = f"{done.stdout}\n{done.stderr}"
        if done.returncode != step.exit_code or step.says not in said:
            raise StepFailed(
                _("fleet {arguments} ended with {code} and said: {said}").format(
                    arguments=" ".join(step.arguments), code=done.returncode, said=said.strip()[-600:]
                )
            )

    def _approve(self, _step: Approve) -> None:
        installation = self._installation
        token = installation.folder / "approver.token"
        if not Approver(installation.server_data, token, installation.fleet).approve():
            raise StepFailed(_("nothing waits for an approval"))

    def _release(self, step: Release) -> None:
        releases.write(
            REPOSITORY / step.model, self._installation.folder / "releases", step.release, step.flaw
        )

    def _steal(self, step: Steal) -> None:
        thief = Thief(self._installation.server_data, self._installation.folder / "loot")
        {"remember": thief.remember, "put_back": thief.put_back, "forge": thief.forge}[step.act]()

    def _serve(self, step: Serve) -> None:
        installation = self._installation
        goals = {unit: count + step.readings for unit, count in installation.served().items()}

        def reached() -> bool:
            now = installation.served()
            return all(
                now[post.unit] >= goals[post.unit] for post in installation.posts.values() if not post.held
            )

        installation.wait(reached, step.within_s, _("{count} more readings").format(count=step.readings))

    def _await(self, step: Await) -> None:
        what = " ".join(filter(None, (step.device or _("every device"), step.what, step.value)))
        self._installation.wait(self._sight.holds(step), step.within_s, what)

    def _pid(self, part: str, device: str | None) -> int:
        if part != "agent":
            return self._installation.pid_of(part)
        pid = self._post(device).agent.pid
        if pid is None:
            raise StepFailed(_("the agent of {device} does not run").format(device=device))
        return pid

    def _post(self, device: str | None) -> Post:
        return self._installation.posts[device or ""]


def _fill(write: Callable[[bytes], int | None]) -> None:
    block = bytes(65536)
    try:
        while write(block):
            pass
    except OSError:
        return


def _filled(argument: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        argument = argument.replace(name, place)
    return argument


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
