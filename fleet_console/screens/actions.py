"""Everything that a key does, once: bindings, footer, help and palette are made from it.

An action belongs to one screen, or to all. What it needs of the source is said here, so that an
action that cannot be done tells why instead of not being there.
"""

from dataclasses import dataclass
from typing import Final

from textual.binding import Binding

from fleet_console.sources.base import Ability
from fleet_protocol.texts import _, mark

EVERYWHERE: Final = "everywhere"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done. ``scope`` is a screen's name; texts are looked up when shown."""

    name: str
    keys: str
    _title: str
    _purpose: str
    scope: str = EVERYWHERE
    needs: Ability | None = None
    in_footer: bool = True

    @property
    def title(self) -> str:
        """One or two words, for the footer."""
        return _(self._title)

    @property
    def purpose(self) -> str:
        """What it does, for help and palette."""
        return _(self._purpose)

    @property
    def binding(self) -> Binding:
        """Its keys."""
        return Binding(self.keys, self.name, self.title, show=self.in_footer, priority=self.is_urgent)

    @property
    def is_urgent(self) -> bool:
        """Whether what is typed right after it must not reach the table."""
        return self.name == "filter"

    @property
    def is_way(self) -> bool:
        """Whether it leads to a place."""
        return self.name.startswith("go(")

    def obstacle(self, abilities: frozenset[Ability]) -> str:
        """Why it cannot be done with such a source; empty where it can."""
        match self.needs:
            case Ability.ON_SITE if Ability.ON_SITE not in abilities:
                return _("only on site: fleet console --local DATA/agent.sock")
            case Ability.FLEET if Ability.FLEET not in abilities:
                return _("only with a server: fleet console --data DIR, or --server URL")
            case _:
                return ""


_FLEET, _SITE = Ability.FLEET, Ability.ON_SITE

_FILTER: Final = mark("Filter the rows: words, !not, ~fuzzy")

ACTIONS: Final = (
    Action("filter", "slash", mark("Filter"), _FILTER, "devices"),
    Action("sort", "s", mark("Sort"), mark("Sort by the next column"), "devices"),
    Action("filter", "slash", mark("Filter"), _FILTER, "events"),
    Action("filter", "slash", mark("Filter"), _FILTER, "rollouts"),
    Action("filter", "slash", mark("Filter"), _FILTER, "proposals"),
    Action("approve", "a", mark("Approve"), mark("Agree to what somebody else asks for"), "proposal"),
    Action("reject", "x", mark("Reject"), mark("Say no to what somebody else asks for"), "proposal"),
    Action("read", "r", mark("Read"), mark("Read a sensor now"), "device", _SITE),
    Action("doctor", "d", mark("Doctor"), mark("Have the agent check itself"), "device", _SITE),
    Action("apply", "u", mark("Update"), mark("Apply an update from a file"), "device", _SITE),
    Action("bundle", "b", mark("Bundle"), mark("Write a support bundle"), "device", _SITE),
    Action("copy", "c", mark("Copy"), mark("Copy the device's name"), "device", in_footer=False),
    Action("steer('pause')", "p", mark("Pause"), mark("Stop before the next wave"), "rollout"),
    Action("steer('resume')", "r", mark("Resume"), mark("Ask to go on with a paused rollout"), "rollout"),
    Action("steer('abort')", "a", mark("Abort"), mark("End it and go back where that may be"), "rollout"),
    Action("go('overview')", "1", mark("Overview"), mark("The fleet at a glance"), needs=_FLEET),
    Action("go('devices')", "2", mark("Devices"), mark("Every device"), needs=_FLEET),
    Action("go('site')", "1", mark("Device"), mark("This agent"), needs=_SITE),
    Action("go('events')", "3", mark("Events"), mark("What policies and agents raised")),
    Action("go('rollouts')", "4", mark("Rollouts"), mark("Moves of the fleet"), needs=_FLEET),
    Action("go('proposals')", "5", mark("Proposals"), mark("What waits for an approval"), needs=_FLEET),
    Action("refresh", "ctrl+r", mark("Refresh"), mark("Ask again now"), in_footer=False),
    Action("back", "escape", mark("Back"), mark("To where you came from"), in_footer=False),
    Action("help", "question_mark,f1", mark("Help"), mark("What every key does")),
    Action("find", "colon,ctrl+p", mark("Find"), mark("Find any action or device"), in_footer=False),
    Action("quit", "q", mark("Quit"), mark("Leave the console")),
)


def named(name: str) -> Action:
    """The action of this name; of several, the first."""
    return next(each for each in ACTIONS if each.name == name)


def gives_way(action: Action, abilities: frozenset[Ability]) -> bool:
    """Whether ``action`` cannot be done and its key does something else with such a source."""
    return bool(action.obstacle(abilities)) and any(
        each.keys == action.keys and each.scope == action.scope and not each.obstacle(abilities)
        for each in ACTIONS
    )


def of(scope: str, abilities: frozenset[Ability]) -> list[Action]:
    """What can be done on a screen with such a source, its own actions first."""
    return [each for each in ACTIONS if each.scope in {scope, EVERYWHERE} and not each.obstacle(abilities)]


def bindings(scope: str) -> list[Binding]:
    """The keys of ``scope``'s own actions."""
    return [action.binding for action in ACTIONS if action.scope == scope]
