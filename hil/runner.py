"""Running scenarios one after the other, and what is kept of each run for the report."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from hil.account import Account
from hil.errors import HilError, RigError, StepFailed
from hil.installation import Installation, running
from hil.rigs import open_rig, why_not
from hil.scenario import AnyStep, Await, CutPower, Scenario, Steal
from hil.sights import Look, Sight
from hil.steps import Doer

STORED_WITHIN_S: Final = 90.0
"""How long the last readings may take to arrive once everything is mended."""

LOOK_EVERY_S: Final = 0.5

Say = Callable[[str], None]


class Verdict(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(slots=True)
class Done:
    """One step as it was done: from when to when, in seconds since the start, and whether it held."""

    text: str
    began_s: float
    ended_s: float
    is_wait: bool
    problem: str = ""


@dataclass(slots=True)
class Run:
    """What is kept of one scenario's run."""

    scenario: Scenario
    rig: str
    verdict: Verdict = Verdict.PASSED
    message: str = ""
    seconds: float = 0.0
    steps: list[Done] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)


def run_all(scenarios: Sequence[Scenario], rig: str | None, seed: int, say: Say) -> list[Run]:
    """Run every scenario, each on ``rig`` or else on the first of its own that can be had."""
    runs = []
    for scenario in scenarios:
        say(_("{name}: {title}").format(name=scenario.name, title=scenario.title))
        run = run_one(scenario, _rig_for(scenario, rig), seed, say)
        say(
            _("  {verdict} in {seconds:.1f} s {message}").format(
                verdict=run.verdict.upper(), seconds=run.seconds, message=run.message
            )
        )
        runs.append(run)
    return runs


def run_one(scenario: Scenario, rig: str, seed: int, say: Say) -> Run:
    """Run one scenario on one rig."""
    run = Run(scenario, rig)
    started = time.monotonic()
    reason = (
        _("{rig}: not a rig of this scenario").format(rig=rig) if rig not in scenario.rigs else why_not(rig)
    )
    if reason:
        # A promise that was not looked at is not kept.
        run.verdict = Verdict.FAILED if scenario.required else Verdict.SKIPPED
        run.message = reason
        return run
    folder = Path(tempfile.mkdtemp(prefix=f"argan-hil-{scenario.name}-"))
    try:
        _perform(scenario, rig, folder, seed, run, started, say)
    except StepFailed as error:
        run.verdict, run.message = Verdict.FAILED, str(error)
    except RigError as error:
        run.verdict = Verdict.FAILED if scenario.required else Verdict.SKIPPED
        run.message = str(error)
    except HilError as error:
        run.verdict, run.message = Verdict.FAILED, str(error)
    finally:
        run.seconds = time.monotonic() - started
        if run.verdict is Verdict.FAILED:
            run.logs = {
                log.stem: log.read_text(errors="replace")[-6000:] for log in sorted(folder.rglob("*.log"))
            }
        shutil.rmtree(folder, ignore_errors=True)
    return run


def _perform(
    scenario: Scenario, rig: str, folder: Path, seed: int, run: Run, started: float, say: Say
) -> None:
    with open_rig(rig, folder, seed) as place, running(scenario, place, folder) as installation:
        sight = Sight(installation)
        doer = Doer(installation, sight, say)
        watch = _Watch(sight, run, started)
        installation.watch = watch
        for step in (Await(what="fresh", say=_("every device reports")), *scenario.steps):
            _do(doer, step, run, started, say)
        if scenario.account:
            _reconcile(installation, sight, run)


def _do(doer: Doer, step: AnyStep, run: Run, started: float, say: Say) -> None:
    done = Done(describe(step), time.monotonic() - started, 0.0, isinstance(step, Await))
    run.steps.append(done)
    say(f"  {done.began_s:6.1f} s  {done.text}")
    try:
        doer.do(step)
    except HilError as error:
        done.problem = str(error)
        raise
    finally:
        done.ended_s = time.monotonic() - started


def describe(step: AnyStep) -> str:
    """A step in words: its own, or its parts."""
    if step.say:
        return step.say
    name = _VERBS.get(type(step), type(step).__name__.lower())
    fields = [field for field in step.__struct_fields__ if field not in {"say", "within_s", "exit_code"}]
    return " ".join(filter(None, [name, *(_value_of(field, getattr(step, field)) for field in fields)]))


_VERBS: Final[dict[type, str]] = {Await: "until", CutPower: "cut power of", Steal: "thief:"}


def _value_of(field: str, value: object) -> str:
    """A field in words: names and texts as they are, figures and switches with their field."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return "" if value == "none" else value
    if value is None or isinstance(value, bool) or value == 0:
        return field if value is True else ""
    return f"{field}={value:g}" if isinstance(value, float) else f"{field}={value}"


def _reconcile(installation: Installation, sight: Sight, run: Run) -> None:
    """Have the meters refuse, wait for the last reading, and hold every one against the database.

    Refuse, and not stop: a meter that stops cuts short the answer that it was just giving.
    """
    for post in installation.posts.values():
        installation.set_fault(post.unit, "exception")
    stored = Await(what="stored", within_s=STORED_WITHIN_S)
    installation.wait(sight.holds(stored), STORED_WITHIN_S, _("the last readings arrive"))
    run.accounts = sight.accounts(installation.served())
    for each in run.accounts:
        if not each.balanced:
            raise StepFailed(
                _("{device}: lost {lost}, doubled {doubled}, uneven {uneven}").format(
                    device=each.device, lost=each.lost, doubled=each.doubled, uneven=each.uneven
                )
            )


@dataclass(slots=True)
class _Watch:
    """Looks at the fleet now and then while something is waited for."""

    sight: Sight
    run: Run
    started: float
    next_s: float = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self.next_s:
            self.next_s = now + LOOK_EVERY_S
            look = self.sight.look(self.started)
            if look is not None:
                self.run.looks.append(look)


def _rig_for(scenario: Scenario, wanted: str | None) -> str:
    if wanted is not None and wanted in scenario.rigs:
        return wanted
    return next((name for name in scenario.rigs if not why_not(name)), scenario.rigs[0])
