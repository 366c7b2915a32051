"""A terminal that a test can type into and read: tmux on a socket of its own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

TMUX = shutil.which("tmux") or "/usr/bin/tmux"
APPEAR_S = 60.0


class Terminal:
    """One program in one terminal."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def run(self, command: Sequence[str], width: int, height: int, **environment: str) -> None:
        """Start ``command``; the terminal stays after it has ended, and shows its exit code."""
        line = " ".join(f"'{part}'" for part in command)
        names = [f"{name}={value}" for name, value in ({"TERM": "xterm-256color"} | environment).items()]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height),
                   f"env {' '.join(names)} {line}; echo ended with $?; exec cat")  # fmt: skip

    def press(self, *keys: str) -> None:
        for key in keys:
            self._tmux("send-keys", key)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    @property
    def text(self) -> str:
        """What stands there now."""
        return self._tmux("capture-pane", "-p")

    def shows(self, *texts: str) -> str:
        """Wait until all of ``texts`` stand there; the screen then."""
        return self.until(lambda text: all(each in text for each in texts), f"shows {texts}")

    def until(self, condition: Callable[[str], bool], what: str) -> str:
        try:
            return wait_until(lambda: text if condition(text := self.text) else "", what, APPEAR_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def end(self) -> None:
        subprocess.run([TMUX, "-S", str(self._socket), "kill-server"], check=False, capture_output=True)

    def _tmux(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in {"TMUX", "NO_COLOR"}}
        done = subprocess.run(
            [TMUX, "-S", str(self._socket), *arguments],
            check=True, capture_output=True, text=True, timeout=30, env=environment | {"LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        return done.stdout


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal that is gone afterwards; ``folder`` must have a short name, as sockets' paths do."""
    opened = Terminal(folder / "t")
    try:
        yield opened
    finally:
        opened.end()
