"""Questions before something changes, and what came of it. Escape always leaves without doing anything."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from fleet_console.screens import looks
from fleet_protocol.texts import _

_LEAVE: list[BindingType] = [Binding("escape", "leave", show=False)]


class Confirm(ModalScreen[bool]):
    """Asks before something is done: the object by its name, what it brings and what it cuts.

    Cancel has the focus, so that a key pressed in haste does nothing.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *_LEAVE,
        Binding("left,right,up,down", "other", show=False),
    ]

    def __init__(self, question: str, thing: str, brings: Sequence[str], verb: str) -> None:
        super().__init__()
        self._question = question
        self._thing = thing
        self._brings = brings
        self._verb = verb

    def compose(self) -> ComposeResult:
        """The question, its object, what follows, and two buttons."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, f"bold {looks.TEXT}"))
            yield Static(Text(self._thing, f"bold {looks.SAND}"), classes="thing")
            for line in self._brings:
                yield Static(Text(f"· {line}", looks.QUIET))
            with Horizontal(classes="buttons"):
                yield Button(_("Cancel"), id="cancel")
                yield Button(self._verb, id="go")

    def on_mount(self) -> None:
        """Cancel first."""
        self.query_one("#cancel").focus()

    def action_leave(self) -> None:
        """Do nothing."""
        self.dismiss(False)

    def action_other(self) -> None:
        """To the other button."""
        self.focus_next()

    @on(Button.Pressed)
    def _answer(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")


class Ask(ModalScreen[str | None]):
    """Asks for one line of text."""

    BINDINGS: ClassVar[list[BindingType]] = _LEAVE

    def __init__(self, question: str, hint: str, given: str = "") -> None:
        super().__init__()
        self._question = question
        self._hint = hint
        self._given = given

    def compose(self) -> ComposeResult:
        """The question, a hint, and room for the answer."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, f"bold {looks.TEXT}"))
            yield Static(Text(self._hint, looks.QUIET))
            field = Input(self._given, select_on_focus=False)
            field.cursor_blink = False
            yield field
            yield Static(Text(_("enter goes on, esc leaves"), looks.QUIET))

    def action_leave(self) -> None:
        """Without an answer."""
        self.dismiss(None)

    @on(Input.Submitted)
    def _answer(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)


class Choose(ModalScreen[str | None]):
    """Asks for one of several."""

    BINDINGS: ClassVar[list[BindingType]] = _LEAVE

    def __init__(self, question: str, names: Sequence[str]) -> None:
        super().__init__()
        self._question = question
        self._names = names

    def compose(self) -> ComposeResult:
        """The question and the names."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, f"bold {looks.TEXT}"))
            yield OptionList(*(Option(Text(name), id=f"n{n}") for n, name in enumerate(self._names)))
            yield Static(Text(_("enter chooses, esc leaves"), looks.QUIET))

    def action_leave(self) -> None:
        """None of them."""
        self.dismiss(None)

    @on(OptionList.OptionSelected)
    def _answer(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._names[event.option_index])


class Told(ModalScreen[None]):
    """Says what came of something; escape, enter or q closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "leave", show=False)]

    def __init__(self, title: str, content: Text) -> None:
        super().__init__()
        self._title = title
        self._content = content

    def compose(self) -> ComposeResult:
        """The title, and the rest in a pane that scrolls."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(self._title, f"bold {looks.TEXT}"))
            with VerticalScroll():
                yield Static(self._content)
            yield Static(Text(_("esc closes"), looks.QUIET))

    def on_mount(self) -> None:
        """Arrow keys scroll."""
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)
