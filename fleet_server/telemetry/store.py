"""Commits what was received: many messages, one transaction, and the cursors moved in it.

For every batch the question is asked under the lock of its flow's cursor row, so the answer holds
for a second ingest and after a restart too: are these numbers committed already? What is new is
written beside the moved cursor, and both are durable or neither. Nobody is told anything before
:meth:`Store.commit` has returned.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine

from fleet_protocol.texts import _
from fleet_server.link.mqtt import Arrival
from fleet_server.telemetry.admission import Admitted, Judged, Refusal, judge
from fleet_server.telemetry.faults import is_of_message, open_writer, unavailable
from fleet_server.telemetry.transaction import Bound, Outcome, Transaction
from fleet_server.telemetry.writer import Writer

CACHED_EPOCHS: Final = 20_000
"""Epochs whose metric numbers are remembered; about a kilobyte each."""


class Store:
    """The only writer of telemetry; one a process, used by one thread at a time."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine: Final = engine
        self._clock: Final = clock
        self._writer: Writer | None = None
        self._bound: Bound = {}

    def commit(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Make durable what ``arrivals`` bring; refuse what is no message.

        Raises:
            StoreError: the database cannot be written now; nothing was, try again later.
        """
        return self.commit_judged(judge(arrivals))

    def commit_judged(self, judged: Judged) -> Outcome:
        """Like :meth:`commit`. A message that the database cannot hold is found by halving, and refused."""
        return self._commit(judged.admitted, judged.refused)

    def close(self) -> None:
        """Give the connection up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _commit(self, admitted: list[Admitted], refusals: list[Refusal]) -> Outcome:
        try:
            return self._transact(admitted, refusals)
        except Exception as error:
            if not is_of_message(error):
                raise
            if len(admitted) == 1:
                reason = _("cannot be stored: {reason}").format(reason=error)
                return self._commit([], [*refusals, Refusal(admitted[0].arrival, admitted[0].device, reason)])
            if not admitted:
                raise
        half = len(admitted) // 2
        outcome = self._commit(admitted[:half], refusals)
        outcome.add(self._commit(admitted[half:], []))
        return outcome

    def _transact(self, admitted: list[Admitted], refusals: list[Refusal]) -> Outcome:
        with unavailable():
            try:
                if self._writer is None:
                    self._writer = open_writer(self._engine)
                transaction = Transaction(self._writer, int(self._clock() * 1000), self._bound)
                self._writer.begin()
                transaction.write(admitted, refusals)
                self._writer.commit()
            except BaseException as error:
                if self._writer is not None:
                    self._writer.rollback()
                if not is_of_message(error):
                    self.close()
                raise
        self._remember(transaction.bound)
        return transaction.outcome

    def _remember(self, bound: Bound) -> None:
        self._bound.update(bound)
        while len(self._bound) > CACHED_EPOCHS:
            self._bound.pop(next(iter(self._bound)))
