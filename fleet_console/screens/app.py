"""``fleet console``: the screens over one source, and the ways between them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, cast

from textual.app import App
from textual.binding import BindingType
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider

from fleet_console.screens import actions, looks
from fleet_console.screens.actions import Action
from fleet_console.screens.base import WIDE, Watching
from fleet_console.screens.device import DeviceScreen
from fleet_console.screens.devices import DevicesScreen
from fleet_console.screens.errands import Errands
from fleet_console.screens.events import EventsScreen
from fleet_console.screens.filtered import Filtered
from fleet_console.screens.freshness import Clock, RealClock
from fleet_console.screens.help import HelpScreen
from fleet_console.screens.overview import OverviewScreen
from fleet_console.screens.proposal import ProposalScreen
from fleet_console.screens.proposals import ProposalsScreen
from fleet_console.screens.rollout import RolloutScreen
from fleet_console.screens.rollouts import RolloutsScreen
from fleet_console.sources.base import Ability, FleetSource, OnSiteSource, Source
from fleet_protocol.texts import _

_PLACES: Final[Mapping[str, type[Watching[Any]]]] = {
    "overview": OverviewScreen,
    "devices": DevicesScreen,
    "events": EventsScreen,
    "rollouts": RolloutsScreen,
    "proposals": ProposalsScreen,
    "site": DeviceScreen,
}


class Console(App[None]):
    """The console. ``source`` is a server or an agent; every screen asks it alone."""

    TITLE = "argan"
    CSS_PATH = Path("console.tcss")
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings(actions.EVERYWHERE)]

    def __init__(self, source: Source, clock: Clock | None = None) -> None:
        super().__init__()
        self.source: Final = source
        self.clock: Final = clock or RealClock()
        self.errands: Final = Errands(self, cast("OnSiteSource", source))

    @property
    def fleet(self) -> FleetSource:
        """The source of the screens that only a server has; they are not reached without one."""
        return cast("FleetSource", self.source)

    @property
    def is_fleet(self) -> bool:
        """Whether the source is a server."""
        return Ability.FLEET in self.source.abilities

    @property
    def way(self) -> list[str]:
        """The places from the first one to here."""
        return [screen.place for screen in self.screen_stack if isinstance(screen, Watching)]

    def on_mount(self) -> None:
        """Begin at the overview, or at the one device."""
        self.register_theme(looks.THEME)
        self.theme = looks.THEME.name
        self.push_screen(OverviewScreen() if self.is_fleet else DeviceScreen())

    async def on_unmount(self) -> None:
        """Let go of the source."""
        await self.source.close()

    def open_device(self, device: str) -> None:
        """Drill down to a device."""
        self.push_screen(DeviceScreen(device))

    def open_rollout(self, rollout: str) -> None:
        """Drill down to a rollout."""
        self.push_screen(RolloutScreen(rollout))

    def open_proposal(self, proposal: str) -> None:
        """Drill down to a proposal."""
        self.push_screen(ProposalScreen(proposal))

    def action_go(self, place: str) -> None:
        """To a place, from wherever one is."""
        if self._may(actions.named(f"go('{place}')")):
            while len(self.screen_stack) > 2:  # noqa: PLR2004 - Textual's own screen, and the place
                self.pop_screen()
            self.switch_screen(_PLACES[place]())

    async def action_back(self) -> None:
        """Take the filter away; else one step up; at the top, nothing."""
        screen = self.screen
        if isinstance(screen, Filtered) and screen.clear_filter():
            return
        if len(self.screen_stack) > 2:  # noqa: PLR2004 - as above
            self.pop_screen()

    def action_refresh(self) -> None:
        """Ask again now."""
        if isinstance(self.screen, Watching):
            self.screen.action_refresh()

    def action_help(self) -> None:
        """Say what every key does."""
        self.push_screen(HelpScreen(self._scope))

    def action_find(self) -> None:
        """Open the palette."""
        self.push_screen(CommandPalette(providers=[Everything], placeholder=_("Find an action or a device")))

    def perform(self, action: Action) -> None:
        """Do ``action`` as its key would."""
        if self._may(action):
            self.simulate_key(action.keys.split(",")[0])

    @property
    def _scope(self) -> str:
        screens = [screen for screen in self.screen_stack if isinstance(screen, Watching)]
        return screens[-1].SCOPE if screens else actions.EVERYWHERE

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Under a dialog nothing else can be done; one key leads to one place."""
        if self.screen.is_modal and action in _BEHIND:
            return False
        if action == "go" and actions.gives_way(
            actions.named(f"go('{parameters[0]}')"), self.source.abilities
        ):
            return False
        return super().check_action(action, parameters)

    def _may(self, action: Action) -> bool:
        """Whether the source can; if not, say why."""
        obstacle = action.obstacle(self.source.abilities)
        if obstacle:
            self.notify(f"{action.purpose}: {obstacle}", severity="warning")
        return not obstacle


_BEHIND: Final = frozenset({"go", "back", "refresh", "help", "find", "quit"})


class Everything(Provider):
    """The palette: every action of the registry, and every device that was seen."""

    @property
    def _console(self) -> Console:
        return cast("Console", self.app)

    async def discover(self) -> Hits:
        """The actions, before anything is typed."""
        for action in self._actions():
            yield DiscoveryHit(action.title, partial(self._console.perform, action), help=action.purpose)

    async def search(self, query: str) -> Hits:
        """Actions and devices that match."""
        matcher = self.matcher(query)
        for action in self._actions():
            score = max(matcher.match(action.title), matcher.match(action.purpose))
            if score > 0:
                shown = matcher.highlight(action.title)
                yield Hit(score, shown, partial(self._console.perform, action), help=action.purpose)
        for device in await self._devices():
            score = matcher.match(device)
            if score > 0:
                shown = matcher.highlight(device)
                yield Hit(
                    score, shown, partial(self._console.open_device, device), help=_("Open this device")
                )

    def _actions(self) -> list[Action]:
        scope = next(
            (each.SCOPE for each in reversed(self._console.screen_stack) if isinstance(each, Watching)), ""
        )
        return actions.of(scope, self._console.source.abilities)

    async def _devices(self) -> list[str]:
        if not self._console.is_fleet:
            return []
        return [device.id for device in (await self._console.fleet.devices()).content]
