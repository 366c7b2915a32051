"""What a technician has an agent do on site: read a sensor, check itself, take an update, write a bundle.

Each asks what it must, confirms what changes something, works in a task, and says what came of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from rich.text import Text

from fleet_console.errors import ConsoleError
from fleet_console.screens import device_texts, looks
from fleet_console.screens.dialogs import Ask, Choose, Confirm, Told
from fleet_console.sources.base import OnSiteSource
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from fleet_console.screens.app import Console

T = TypeVar("T")

_SAY_S: Final = 15.0
"""How long a refusal stays: it says what to do, and has to be read."""


class Errands:
    """The errands of one console with one agent."""

    def __init__(self, app: "Console", agent: OnSiteSource) -> None:
        self._app = app
        self._agent = agent

    async def read(self, sensors: Sequence[str]) -> None:
        """Read one of ``sensors`` now; with one, without asking which."""
        if not sensors:
            self._app.notify(_("This agent has no sensor."), severity="warning")
        elif len(sensors) == 1:
            self._read(sensors[0])
        else:
            self._app.push_screen(
                Choose(_("Which sensor?"), sensors), lambda name: self._read(name) if name else None
            )

    def doctor(self) -> None:
        """Have the agent check itself."""
        self._begin(
            _("The agent checks itself …"),
            self._agent.doctor,
            lambda seen: self._tell(_("What the agent's checks found"), device_texts.findings(seen.content)),
        )

    def apply(self, device: str) -> None:
        """Apply an update from a file on the device, after a confirmation."""
        question = _("Apply which update?")
        hint = _("A bundle on this device, for example from a stick: /media/stick/update.tar")
        self._app.push_screen(
            Ask(question, hint, "/"), lambda path: self._confirm(device, path) if path else None
        )

    def bundle(self, device: str) -> None:
        """Write a support bundle to a file on the device."""
        name = f"argan-{device}-{self._app.clock.wall():%Y%m%d-%H%M%S}.tar.gz"
        hint = _("On this device. It holds no key, no certificate's key and no token.")
        self._app.push_screen(
            Ask(_("Write the support bundle where?"), hint, f"/tmp/{name}"),  # noqa: S108 - an offer, not a secret
            lambda path: self._write(path) if path else None,
        )

    def _read(self, sensor: str) -> None:
        self._begin(
            _("Reading {sensor} …").format(sensor=sensor),
            lambda: self._agent.read_sensor(sensor),
            lambda seen: self._tell(
                _("{sensor}, read at {time}").format(sensor=sensor, time=_time(self._app.clock.wall())),
                device_texts.readings(seen.content),
            ),
        )

    def _confirm(self, device: str, path: str) -> None:
        brings = [
            _("Nothing restarts and no reading is lost; models and policies switch while they run."),
            _("Only what both repositories signed for this device is taken; else it says why not."),
            _("What is new is on probation first. If it does worse, the old one comes back by itself."),
        ]
        self._app.push_screen(
            Confirm(_("Apply this update to {device}?").format(device=device), path, brings, _("Apply")),
            lambda yes: self._apply(path) if yes else None,
        )

    def _apply(self, path: str) -> None:
        self._begin(
            _("Applying {path}; its progress is under Updates.").format(path=path),
            lambda: self._agent.apply_update(path),
            lambda _seen: self._app.notify(_("The update is taken: see Updates for its probation.")),
        )

    def _write(self, path: str) -> None:
        self._begin(
            _("Writing the support bundle …"),
            lambda: self._agent.write_bundle(path),
            lambda seen: self._tell(
                _("Support bundle {id}").format(id=seen.content.id),
                Text.assemble(
                    (seen.content.path, f"bold {looks.TEXT}"),
                    (f"\n{looks.size(seen.content.bytes)}", looks.QUIET),
                    "\n\n",
                    _("Send the file to support and tell them its id: {id}").format(id=seen.content.id),
                ),
            ),
        )

    def _begin(self, told: str, work: Callable[[], Awaitable[T]], then: Callable[[T], object]) -> None:
        self._app.notify(told, timeout=_SAY_S)
        self._app.run_worker(self._do(work, then), group="errand", name=told)

    async def _do(self, work: Callable[[], Awaitable[T]], then: Callable[[T], object]) -> None:
        try:
            result = await work()
            self._app.clear_notifications()
            then(result)
        except ConsoleError as error:
            self._app.clear_notifications()
            self._app.notify(str(error), severity="error", timeout=_SAY_S)

    def _tell(self, title: str, content: Text) -> None:
        self._app.push_screen(Told(title, content))


def _time(now: datetime) -> str:
    return f"{now:%H:%M:%S}"
