"""Signing how far the record of changes goes: at start, at stop, and while it grows.

Before a checkpoint is signed, the chain must still hold what the last one has signed: a server never puts its
name under a chain that somebody has written anew, or that an older backup brought back.
"""

import logging
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.audit.checkpoint_files import Copy, held, read_audit_key
from fleet_server.audit.checkpoints import AT_ONCE, STEADY, Pace, Signed, checkpoint_due, read_line, sign
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.models import AuditRecord
from fleet_server.database.service import clear_code, raise_code
from fleet_server.errors import AuditBroken, AuditError
from fleet_signing.keys import public_text

LOOK_MS: Final = 2_000
"""How often the end of the chain is looked at: one question by its key."""

_CHECKPOINT: Final = "audit.checkpoint"
_BROKEN: Final = "audit.broken"

log: Final = logging.getLogger(__name__)


def write_checkpoint(engine: Engine, config: ServerConfig, pace: Pace = AT_ONCE) -> None:
    """Sign the end of the chain, where ``pace`` says that it is due, in this server's own file.

    Raises:
        AuditBroken: the chain or the file is not what was signed before; nothing is signed.
        AuditError: the key cannot be read.
        OSError: the file cannot be written.
    """
    signer = read_audit_key(config)
    with held(config.own_checkpoints) as ledger:
        last = _last(ledger.last(), public_text(signer.public_key), config)
        end = _end(engine, config, last)
        now_ms = wall_ms()
        if end is not None and checkpoint_due(last.checkpoint if last else None, end[0], now_ms, pace):
            ledger.append(sign(signer, last, config.tenant, end, now_ms).line)


class CheckpointKeeper:
    """Keeps checkpoints written and copied; what goes wrong is a health code, and stops nobody."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._config = config
        given = config.audit_checkpoints
        self._copy = None if given == config.own_checkpoints else Copy(config.own_checkpoints, given)
        self._looked_ms: int | None = None
        self._told: dict[str, str | None] = {}

    def tend(self, now_ms: int) -> None:
        """Write a checkpoint if one is due at ``now_ms``; called often, looks every :data:`LOOK_MS`."""
        if self._looked_ms is None or not 0 <= now_ms - self._looked_ms < LOOK_MS:
            self._looked_ms = now_ms
            self._work(STEADY)

    def settle(self) -> None:
        """Write a checkpoint of whatever no other covers yet: at start and at stop."""
        self._work(AT_ONCE)

    def _work(self, pace: Pace) -> None:
        raised: dict[str, str | None] = {_BROKEN: None, _CHECKPOINT: None}
        try:
            write_checkpoint(self._engine, self._config, pace)
            if self._copy is not None:
                self._copy.refresh()
        except AuditBroken as error:
            raised[_BROKEN] = str(error)
        except (AuditError, OSError) as error:
            raised[_CHECKPOINT] = str(error)
        except SQLAlchemyError as error:
            log.warning(_("the database failed, checkpoints wait for it: {reason}").format(reason=error))
            return
        self._tell(raised)

    def _tell(self, raised: dict[str, str | None]) -> None:
        """Note what changed; what cannot be noted now is told again next time."""
        for code, detail in raised.items():
            # A code may still be raised from an earlier run: what was never told is told too.
            if code in self._told and self._told[code] == detail:
                continue
            try:
                if detail is None:
                    clear_code(self._engine, code, wall_ms())
                else:
                    log.error("%s: %s", code, detail)
                    raise_code(self._engine, code, wall_ms(), detail)
                self._told[code] = detail
            except SQLAlchemyError as error:
                log.warning(_("a health code cannot be written: {reason}").format(reason=error))


def _last(line: bytes | None, key: str, config: ServerConfig) -> Signed | None:
    if line is None:
        return None
    try:
        return Signed(read_line(line, key), line)
    except ValueError as error:
        raise AuditBroken(
            _("the last line of {path} does not count: {reason}").format(
                path=config.own_checkpoints, reason=error
            )
        ) from error


def _end(engine: Engine, config: ServerConfig, last: Signed | None) -> tuple[int, str] | None:
    """Number and digest of the last record, once the chain was found to hold what ``last`` says."""
    chain = select(AuditRecord.number, AuditRecord.sha256).where(AuditRecord.tenant == config.tenant)
    with Session(engine) as session:
        end = session.exec(chain.order_by(col(AuditRecord.number).desc()).limit(1)).first()
        if last is not None:
            signed = last.checkpoint
            found = session.exec(chain.where(AuditRecord.number == signed.number)).first()
            if found is None or found[1] != signed.sha256:
                raise AuditBroken(
                    _("record {number} is not what was signed, the chain ends with {end}").format(
                        number=signed.number, end=end[0] if end else 0
                    )
                )
    return end
