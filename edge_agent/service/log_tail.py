"""The last lines of the agent's log, kept in memory: a board without a journal still has them."""

import logging
from collections import deque
from typing import Final

LINES: Final = 500
"""Lines that are kept; with :data:`LINE` that is at most a quarter of a megabyte."""

LINE: Final = 500
"""Characters of one record; a trace is cut in the middle of nowhere rather than kept whole."""

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogTail(logging.Handler):
    """A log handler that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._lines: deque[str] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember ``record``."""
        try:
            self._lines.append(self.format(record)[:LINE])
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)

    @property
    def text(self) -> str:
        """What is remembered, oldest first."""
        return "".join(f"{line}\n" for line in tuple(self._lines))
