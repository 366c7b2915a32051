"""What every key does, made from the registry; what cannot be done here says why."""

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from fleet_console.screens import looks
from fleet_console.screens.actions import ACTIONS, EVERYWHERE, Action
from fleet_console.screens.chrome import key_names
from fleet_console.sources.base import Ability
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from fleet_console.screens.app import Console


class HelpScreen(ModalScreen[None]):
    """The keys of the screen below, then those that work everywhere, then the rest."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,question_mark,f1", "leave", show=False)]
    app: "Console"

    def __init__(self, scope: str) -> None:
        super().__init__()
        self._scope = scope

    def compose(self) -> ComposeResult:
        """One list."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(_("Keys"), f"bold {looks.TEXT}"))
            with VerticalScroll():
                yield Static(keys_in_words(self._scope, self.app.source.abilities))
            yield Static(Text(_("esc closes"), looks.QUIET))

    def on_mount(self) -> None:
        """Arrow keys scroll."""
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


def keys_in_words(scope: str, abilities: frozenset[Ability]) -> Text:
    """Every action under its screen, that of ``scope`` first."""
    scopes = dict.fromkeys([scope, EVERYWHERE, *(action.scope for action in ACTIONS)])
    text = Text()
    for each in scopes:
        chosen = [action for action in ACTIONS if action.scope == each and _concerns(action, abilities)]
        if chosen:
            text.append(("\n" if text else "") + _heading(each, scope) + "\n", f"bold {looks.SAND}")
        for action in chosen:
            obstacle = action.obstacle(abilities)
            text.append(f"  {key_names(action):<12}", looks.QUIET if obstacle else f"bold {looks.TEXT}")
            text.append(action.purpose, looks.QUIET if obstacle else looks.TEXT)
            if obstacle:
                text.append(f" ({obstacle})", looks.QUIET)
            text.append("\n")
    text.append("\n" + _("In tables") + "\n", f"bold {looks.SAND}")
    for keys, purpose in (("↑ ↓ j k", _("Move")), ("enter", _("Open")), ("tab", _("To the next part"))):
        text.append(f"  {keys:<12}", f"bold {looks.TEXT}").append(f"{purpose}\n")
    return text


def _concerns(action: Action, abilities: frozenset[Ability]) -> bool:
    """Ways to places that this source does not have are left out; what could be done elsewhere is told."""
    return action.scope != EVERYWHERE or not action.obstacle(abilities)


def _heading(scope: str, here: str) -> str:
    if scope == EVERYWHERE:
        return _("Everywhere")
    name = {
        "devices": _("Devices"),
        "device": _("Device"),
        "events": _("Events"),
        "rollouts": _("Rollouts"),
        "rollout": _("Rollout"),
        "proposals": _("Proposals"),
        "proposal": _("Proposal"),
    }[scope]
    return _("{name} (here)").format(name=name) if scope == here else name
