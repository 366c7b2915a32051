"""Scenarios: what is set up, what is done to it, what must come true. TOML in, frozen objects out.

A scenario is a list of steps, done one after the other. A step acts (``do = "kill"``) or waits for
something to be seen through the server (``do = "await"``). At the end every reading that a sensor
served is held against the database, unless the scenario says ``account = false``.

What is wrong in a file is told with its line: see :mod:`hil.lines`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from fleet_protocol.texts import _
from hil.errors import ScenarioError
from hil.lines import line_of

FOLDER: Final = Path(__file__).parent / "scenarios"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=3600.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

RigName = Literal["simulated", "namespace"]
Part = Literal["agent", "server", "broker", "ingest", "escalation"]
Fault = Literal["none", "stuck", "silent", "exception", "not_a_number"]


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One agent with one Modbus meter.

    ``time_factor``: how much faster than real its world runs. ``disk_mib``: its data folder lies on
    a file system of that size (needs root). ``model`` and ``policy``: paths in the repository.
    """

    name: Name
    profile: str = "simulated"
    interval_s: Seconds = 0.1
    time_factor: Annotated[float, msgspec.Meta(ge=1.0, le=1e6)] = 1.0
    stuck_after_s: Seconds | None = None
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=2**20)] | None = None
    disk_mib: Annotated[int, msgspec.Meta(ge=2, le=1024)] | None = None
    model: str | None = None
    policy: str | None = None
    updates: dict[str, int | float] = {}


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="do"):
    """One step; ``say`` is what the report shows for it."""

    say: str = ""


class Kill(Step, frozen=True, kw_only=True, tag="kill"):
    """SIGKILL; whoever keeps the part running starts it again. An agent stays dead with ``hold``."""

    what: Part
    device: Name | None = None
    hold: bool = False


class CutPower(Step, frozen=True, kw_only=True, tag="cut_power"):
    """Restart an agent and kill it where it would rename its nth file, for every n of ``at`` in turn.

    Every durable write ends with a rename, so an update is cut between its durable acts. One that
    writes nothing more within ``within_s`` is killed then.
    """

    device: Name
    at: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=2, le=50)], ...], msgspec.Meta(min_length=1, max_length=50)
    ]
    within_s: Seconds = 20.0


class Start(Step, frozen=True, kw_only=True, tag="start"):
    """Start an agent that was held."""

    device: Name


class Freeze(Step, frozen=True, kw_only=True, tag="freeze"):
    """SIGSTOP: the part is there and does nothing."""

    what: Part
    device: Name | None = None


class Thaw(Step, frozen=True, kw_only=True, tag="thaw"):
    """SIGCONT."""

    what: Part
    device: Name | None = None


class Link(Step, frozen=True, kw_only=True, tag="link"):
    """What the network between the field and the center does from now on.

    ``delay_ms`` each way, ``loss`` and ``reorder`` as shares of the packets, ``rate_kbit`` each way
    (0 is unlimited). ``cut`` stops packets from the field (``up``), to it (``down``), or both.
    """

    delay_ms: Annotated[float, msgspec.Meta(ge=0.0, le=10_000.0)] = 0.0
    loss: Share = 0.0
    reorder: Share = 0.0
    rate_kbit: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    cut: Literal["none", "up", "down", "both"] = "none"


class Sensor(Step, frozen=True, kw_only=True, tag="sensor"):
    """What a device's meter does from now on."""

    device: Name
    fault: Fault


class Disk(Step, frozen=True, kw_only=True, tag="disk"):
    """Fill the device's file system, or empty it again."""

    device: Name
    full: bool


class Clock(Step, frozen=True, kw_only=True, tag="clock"):
    """Restart the agent with its wall clock at this time (``YYYY-MM-DD hh:mm:ss``), or right again."""

    device: Name
    at: Annotated[str, msgspec.Meta(pattern=r"^(right|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\Z")]


class Fleet(Step, frozen=True, kw_only=True, tag="fleet"):
    """A command of ``fleet``; ``{keys}``, ``{out}`` and ``{repository}`` stand for folders."""

    arguments: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    exit_code: int = 0
    says: str = ""


class Approve(Step, frozen=True, kw_only=True, tag="approve"):
    """Another person approves whatever waits for an approval; something does."""


class Release(Step, frozen=True, kw_only=True, tag="release"):
    """Make a release of a model, good or with a flaw, in ``{out}/releases/NAME-RELEASE``."""

    model: str
    release: Annotated[int, msgspec.Meta(ge=2)]
    flaw: Literal["none", "golden", "worse"] = "none"


class Steal(Step, frozen=True, kw_only=True, tag="steal"):
    """What somebody does who has the server's disk: see :mod:`hil.thief`."""

    act: Literal["remember", "put_back", "forge"]


class Serve(Step, frozen=True, kw_only=True, tag="serve"):
    """Let every device's meter be read ``readings`` more times: time passes in its world."""

    readings: Annotated[int, msgspec.Meta(ge=1)]
    within_s: Seconds = 60.0


class Await(Step, frozen=True, kw_only=True, tag="await"):
    """Something must come true, as the server tells it, within ``within_s`` seconds.

    Of one device, or of all where none is named: ``online``, ``offline``, ``fresh`` (a reading taken
    after the waiting began), ``stored`` (all that the meter served), ``health`` (that code is raised,
    with the text behind it in its detail),
    ``well`` (that code is not), ``event`` (one of that name), ``update`` (one in that state), ``refusal``
    (one of that class), ``release`` (``kind name release`` is what runs), ``answered`` (a central answer
    superseded a local one).
    """

    what: Literal[
        "online", "offline", "fresh", "stored", "health", "well", "event", "update", "refusal", "release",
        "answered",
    ]  # fmt: skip
    device: Name | None = None
    value: str = ""
    within_s: Seconds = 60.0


AnyStep = (
    Kill | CutPower | Start | Freeze | Thaw | Link | Sensor | Disk | Clock | Fleet | Approve | Release | Steal
    | Serve | Await
)  # fmt: skip


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A scenario. ``required``: where its rig cannot be had, the run fails instead of skipping it.

    ``repositories``: signed updates are set up, and factory-fitted models are releases of the rig's
    own. ``central_model``: a path in the repository; the server answers questions with it.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Name
    title: Words
    promise: Words
    rigs: Annotated[tuple[RigName, ...], msgspec.Meta(min_length=1)]
    required: bool = True
    account: bool = True
    repositories: bool = False
    central_model: str | None = None
    devices: Annotated[tuple[Device, ...], msgspec.Meta(min_length=1, max_length=20)]
    steps: Annotated[tuple[AnyStep, ...], msgspec.Meta(min_length=1, max_length=200)]


def load(file: Path) -> Scenario:
    """The scenario in ``file``.

    Raises:
        ScenarioError: naming the file, the line and what to do.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ScenarioError(_("{file}: {reason}").format(file=file, reason=error.strerror)) from None
    except ValueError as error:
        raise ScenarioError(_("{file}: no TOML: {reason}").format(file=file, reason=error)) from None
    try:
        scenario = msgspec.convert(content, Scenario)
    except msgspec.ValidationError as error:
        raise _located(file, text, str(error)) from None
    for where, problem in _contradictions(scenario):
        raise ScenarioError(f"{file}:{line_of(text, where)}: {problem}")
    return scenario


def every() -> list[Scenario]:
    """All scenarios of this folder, by name."""
    return [load(file) for file in sorted(FOLDER.glob("*.toml"))]


def schema() -> dict[str, Any]:
    """The JSON Schema of a scenario, for editors."""
    return msgspec.json.schema(Scenario)


def _located(file: Path, text: str, reason: str) -> ScenarioError:
    what, _separator, where = reason.partition(" - at `")
    return ScenarioError(f"{file}:{line_of(text, where.rstrip('`'))}: {what}")


def _contradictions(scenario: Scenario) -> list[tuple[str, str]]:
    """(where, what) of each."""
    names = [device.name for device in scenario.devices]
    problems = [
        (f"$.devices[{place}].name", _("two devices are named {name!r}").format(name=name))
        for place, name in enumerate(names)
        if name in names[:place]
    ]
    for place, step in enumerate(scenario.steps):
        where = f"$.steps[{place}]"
        problems += [(where, problem) for problem in _step_problems(scenario, step, names)]
    return problems


def _step_problems(scenario: Scenario, step: AnyStep, names: list[str]) -> list[str]:
    device = getattr(step, "device", None)
    problems = []
    if device is not None and device not in names:
        problems.append(_("there is no device {name!r}").format(name=device))
    if isinstance(step, Link) and scenario.rigs != ("namespace",):
        problems.append(_("'link' needs rigs = [\"namespace\"]"))
    if isinstance(step, Kill | Freeze | Thaw) and (step.what == "agent") != (device is not None):
        problems.append(_("'device' goes with what = \"agent\", and with nothing else"))
    if isinstance(step, Disk) and device in names and scenario.devices[names.index(device)].disk_mib is None:
        problems.append(_("device {name!r} has no 'disk_mib'").format(name=device))
    return problems


def by_name(names: list[str]) -> list[Scenario]:
    """The scenarios named, or all where none is.

    Raises:
        ScenarioError: there is none of a name.
    """
    known: Mapping[str, Scenario] = {scenario.name: scenario for scenario in every()}
    for name in names:
        if name not in known:
            raise ScenarioError(
                _("no scenario {name!r}; there are: {known}").format(name=name, known=", ".join(known))
            )
    return [known[name] for name in names] if names else list(known.values())
