"""A service's notes of itself: that it lives, and which health codes it raises."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.database.service import BEAT_S, beat, clear_code, raise_code

log: Final = logging.getLogger(__name__)


class Notes:
    """The codes of the service ``name`` in the database, written when they change; what cannot be waits."""

    def __init__(self, engine: Engine, name: str, codes: Sequence[str]) -> None:
        self._engine = engine
        self._name = name
        self._codes = codes
        self._started_ms = wall_ms()
        self._written: dict[str, str | None] = {}
        self._beat_s = -BEAT_S

    def keep(self, raised: Mapping[str, str], now_s: float) -> None:
        """Bring what is written to ``raised``, each code with its detail, and say now and then: it lives."""
        try:
            for code in self._codes:
                self._keep(code, raised.get(code))
            if now_s - self._beat_s >= BEAT_S:
                beat(self._engine, self._name, self._started_ms, wall_ms())
                self._beat_s = now_s
        except SQLAlchemyError as error:
            log.warning(
                _("{name} cannot write to the database: {reason}").format(name=self._name, reason=error)
            )

    def _keep(self, code: str, detail: str | None) -> None:
        # A code may still be raised from an earlier run: what was never written is written too.
        if code in self._written and self._written[code] == detail:
            return
        if detail is None:
            clear_code(self._engine, code, wall_ms())
        else:
            raise_code(self._engine, code, wall_ms(), detail)
        self._written[code] = detail
