"""What the screens have in common: they look at the source again and again and say how old the look is.

The question is asked in a task that never touches a widget: it posts what it brought, and the
screen's handlers own everything that is shown.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from fleet_console.errors import Absent, ConsoleError
from fleet_console.screens import actions, looks
from fleet_console.screens.chrome import Banner, KeyBar, TitleBar
from fleet_console.screens.freshness import Failure, Look, banner
from fleet_console.sources.views import Seen
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from fleet_console.screens.app import Console

T = TypeVar("T")

REFRESH_S: Final = 2.0
"""Seconds between two looks; a person does not see faster, and an uplink is not there for consoles."""

PATIENCE: Final = 4.0
"""A look that took long is followed by a pause of so many times its length: the source is busy."""

REST: Final = 10.0
"""After a drawing, growing ages wait so many times its length: a large fleet must not keep a laptop busy."""

WIDE: Final = 120
"""Columns from which a screen has room for two."""


class Looked(Message):
    """A look has brought something."""

    def __init__(self, look: Look[Any]) -> None:
        super().__init__()
        self.look: Final = look


class Failed(Message):
    """A look, or something that was asked for, has failed."""

    def __init__(self, error: ConsoleError) -> None:
        super().__init__()
        self.error: Final = error


class Watching(Screen[None], Generic[T]):
    """A screen that shows what :meth:`look_at` brings, with :meth:`show`, and its age."""

    SCOPE: ClassVar[str]
    app: "Console"

    def __init__(self) -> None:
        super().__init__()
        self.last: Look[T] | None = None
        self.failure: Failure | None = None
        self._due_s = 0.0
        self._rest_until_s = 0.0
        self._looking = False

    async def look_at(self) -> Seen[T]:
        """Ask the source."""
        raise NotImplementedError

    def show(self, look: Look[T], now_s: float) -> None:
        """Draw what was seen; called again every second, because ages grow."""
        raise NotImplementedError

    def body(self) -> ComposeResult:
        """The widgets between title and keys."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """The screen's name on the way to it."""
        raise NotImplementedError

    @property
    def is_wide(self) -> bool:
        """Whether there is room for two columns."""
        return self.size.width >= WIDE

    def compose(self) -> ComposeResult:
        """Title, banner, body, keys."""
        yield TitleBar(id="title")
        yield Banner(id="banner")
        yield Static(_("Asking …"), id="empty")
        with Vertical(id="body"):
            yield from self.body()
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#body").display = False
        self.query_one(Banner).tell("")
        self.set_interval(1.0, self.tick)

    def on_screen_resume(self) -> None:
        """Look at once when the screen comes to the front."""
        self._due_s = 0.0
        self.tick()

    def on_resize(self) -> None:
        """Lay out anew."""
        self.draw()

    def tick(self) -> None:
        """Look if it is time, and let ages grow; a screen behind another rests."""
        if not self.is_current:
            return
        if not self._looking and self.app.clock.monotonic_s() >= self._due_s:
            self._looking = True
            self.run_worker(self._look(), group="look", name=f"look {self.SCOPE}")
        if self.app.clock.monotonic_s() >= self._rest_until_s:
            self.draw()

    def action_refresh(self) -> None:
        """Look now."""
        self._due_s = 0.0
        self.tick()

    async def _look(self) -> None:
        clock = self.app.clock
        began_s = clock.monotonic_s()
        try:
            seen = await self.look_at()
            self.post_message(Looked(Look(seen, clock.monotonic_s(), clock.wall())))
        except ConsoleError as error:
            self.post_message(Failed(error))
        finally:
            now_s = clock.monotonic_s()
            self._due_s = now_s + max(REFRESH_S, PATIENCE * (now_s - began_s))
            self._looking = False

    @on(Looked)
    def _take(self, message: Looked) -> None:
        self.last, self.failure = message.look, None
        self.draw()

    @on(Failed)
    def _fail(self, message: Failed) -> None:
        since = self.failure.wall if self.failure else self.app.clock.wall()
        self.failure = Failure(message.error, since)
        self.draw()

    def draw(self) -> None:
        """Draw everything as of now."""
        if not self.is_mounted:
            return
        now_s = self.app.clock.monotonic_s()
        self.query_one("#body").display = self.last is not None
        self.query_one("#empty").display = self.last is None
        if self._is_absent and self.failure:
            self.query_one("#empty", Static).update(Text(_sentence(str(self.failure.error))))
        self.query_one(Banner).tell("" if self._is_absent else banner(self.failure, self.last, now_s))
        self.query_one(TitleBar).tell(self.app.way, self.app.source.name, self._freshness(now_s))
        self.query_one(KeyBar).tell(actions.of(self.SCOPE, self.app.source.abilities))
        if self.last is not None:
            self.show(self.last, now_s)
        ended_s = self.app.clock.monotonic_s()
        self._rest_until_s = ended_s + REST * (ended_s - now_s)

    @property
    def _is_absent(self) -> bool:
        """Whether the source has answered that it has no such thing."""
        return self.last is None and self.failure is not None and isinstance(self.failure.error, Absent)

    def _freshness(self, now_s: float) -> Text:
        if self._is_absent:
            return Text(_("● answers"), looks.LEAF)
        if self.last is None:
            return Text(_("◌ nothing seen yet"), looks.QUIET)
        age = self.last.age(self.last.seen.now_ms, now_s)
        if self.failure is None:
            return Text(_("● live {age}").format(age=age), looks.LEAF)
        return Text(_("○ {age} old").format(age=age), f"bold {looks.AMBER}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
