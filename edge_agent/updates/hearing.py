"""What a look says, handed on to the executor as it comes."""

import logging
from collections.abc import Callable
from typing import Final

from edge_agent.updates.executor import Executor
from edge_agent.updates.loading import Loading
from edge_agent.updates.records import Entry, Refusing
from edge_agent.updates.spoken import (
    Accepted,
    Broken,
    Done,
    Held,
    Noted,
    Progress,
    Refused,
    Said,
    Unreachable,
    Waiting,
)
from fleet_protocol.targets import Target
from fleet_protocol.texts import _
from fleet_protocol.versions import OrderedVersion

_LOG: Final = logging.getLogger(__name__)


class Heard:
    """What a look says, handed on to the executor as it comes."""

    def __init__(self, executor: Executor, loading: Loading, changed: Callable[[], None]) -> None:
        self._executor: Final = executor
        self._loading: Final = loading
        self._changed: Final = changed
        self.refused: list[Refusing] = []
        self.dropped: list[Entry] = []
        self.waiting: list[Target] = []
        self.orders: list[OrderedVersion] = []
        self.unreachable = ""
        self.broken = ""
        self.done = False
        self.is_whole = True

    @property
    def problem(self) -> str:
        """Why the look was not whole."""
        return self.broken or self.unreachable

    def hear(self, said: Said) -> None:
        """Take one line.

        Raises:
            UpdateBroken: it cannot be written down.
        """
        match said:
            case Progress() | Held() | Noted():
                self._hear_fetching(said)
            case Accepted(target):
                self._executor.accept(target)
            case Waiting(target):
                entry = self._executor.journal.entry(target.key)
                if entry is None or entry.target != target:
                    self.waiting.append(target)
            case Refused(refusal, scope, detail, None):
                self.refused.append(Refusing(scope, refusal, detail))
            case Refused(refusal, _scope, detail, target) if target is not None:
                self._executor.refuse(target, refusal, detail)
            case Unreachable(detail):
                self.unreachable = detail
            case Broken(detail):
                self.broken = detail
            case Done(ordered, orders):
                self.done, self.orders = True, orders
                self.dropped = self._executor.settle(ordered)

    def _hear_fetching(self, said: Progress | Held | Noted) -> None:
        match said:
            case Progress(target):
                self._executor.begin(target)
                self._loading.begin(said)
                self._changed()
            case Held(target, detail):
                self._loading.hold(said)
                _LOG.info("%s", _("{path}: {detail}").format(path=target.path, detail=detail))
                self._changed()
            case Noted(detail):
                _LOG.info("%s", detail)
