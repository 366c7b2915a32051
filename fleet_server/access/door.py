"""The door: a password or an issuer's word becomes a session, and whoever leaves ends it.

A try is counted before it is made, so that many at once are not many for one. Whether a name exists is told
neither by words nor by the work done. What strangers try is in the audit, but cannot fill it: a person's
account closes for longer and longer, and everything else is summed up now and then.
"""

import time
from collections import Counter
from threading import Lock
from typing import Final, NamedTuple

from sqlalchemy import Engine
from sqlmodel import Session, col, delete, select

from fleet_protocol.texts import _
from fleet_server.access import lockout, passwords
from fleet_server.access.issuing import SESSION
from fleet_server.access.oidc import Endpoints, Issuer
from fleet_server.access.roles import Actor, Caller, Permission
from fleet_server.access.tokens import digest, grants_of, new_token
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Person, Token
from fleet_server.errors import LoginRefused, NoIssuer
from fleet_server.nonces import Nonces

SESSION_MS: Final = 8 * 3_600_000
"""How long a session lasts: a working day."""

LOGIN_S: Final = 600.0
"""How long a person may take at the issuer's page."""

SUM_S: Final = 600.0
"""How often what strangers tried is written into the audit, at most."""

MOST_SOURCES: Final = 20
"""Addresses that are told apart in such a sum."""

_OTHERS: Final = "others"


class Opened(NamedTuple):
    """A session: its token, to be told once, whose it is, and when it ends."""

    token: str
    person: str
    expires_ms: int


class Strangers:
    """Counts refusals by address; now and then the sum is due. Pure: the time is handed in."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told_s = float("-inf")
        self._lock: Final = Lock()

    def add(self, source: str, now_s: float) -> dict[str, int]:
        """Count one more from ``source``; all since the last sum where one is due, or nothing."""
        with self._lock:
            is_known = source in self._counts or len(self._counts) < MOST_SOURCES
            self._counts[source if is_known else _OTHERS] += 1
            if now_s - self._told_s < SUM_S:
                return {}
            due, self._counts, self._told_s = dict(self._counts), Counter(), now_s
            return due


class Door:
    """Lets people in and out; one for a process. ``issuer`` is None where OIDC is not set up."""

    def __init__(self, engine: Engine, tenant: str, issuer: Issuer | None) -> None:
        self._engine: Final = engine
        self._tenant: Final = tenant
        self._issuer: Final = issuer
        self._nonces: Final = Nonces(LOGIN_S)
        self._strangers: Final = Strangers()

    def with_password(self, name: str, password: str, source: str) -> Opened:
        """A session of the person ``name``.

        Raises:
            LoginRefused: name or password are wrong, or there were too many tries.
        """
        kept = self.require_password(name, password, source)
        with writing(self._engine) as session:
            row = session.get_one(Person, (self._tenant, name), with_for_update=True)
            if row.disabled_ms is not None or row.password != kept:
                raise LoginRefused(_("the account was changed meanwhile; try again"))
            row.failed_logins, row.locked_until_ms = 0, 0
            return self._open(session, row, source, "password")

    def require_password(self, name: str, password: str, source: str) -> str:
        """See to it that ``name`` has this password; what the database keeps of it.

        Raises:
            LoginRefused: name or password are wrong, or there were too many tries.
        """
        kept = self._count_try(name)
        if not passwords.is_right(kept, password):
            self._refuse(name if kept else None, source)
            raise LoginRefused(_("name and password do not match, or it was tried too often"))
        return kept

    def invitation(self) -> tuple[Issuer, Endpoints, str]:
        """Who the issuer is, where it is reached, and a nonce for one login there.

        Raises:
            NoIssuer: OIDC is not set up.
            IssuerDown: it cannot be asked.
        """
        issuer, now_s = self._require_issuer(), time.monotonic()
        return issuer, issuer.endpoints(now_s), self._nonces.make(now_s)

    def with_id_token(self, id_token: str, nonce: str, source: str) -> Opened:
        """A session of whom ``id_token`` speaks of; it was made for a ``nonce`` that was given out here.

        Raises:
            NoIssuer: OIDC is not set up.
            IssuerDown: it cannot be asked for its keys.
            LoginRefused: the token is not as it has to be, or its subject is nobody here.
        """
        try:
            subject = self._subject(id_token, nonce)
            with writing(self._engine) as session:
                return self._open(session, self._linked(session, subject), source, "oidc")
        except LoginRefused:
            self._refuse(None, source)
            raise

    def close(self, caller: Caller) -> None:
        """End the session, or the token, that the caller came with."""
        with writing(self._engine) as session:
            row = session.get_one(Token, (caller.tenant, caller.token_sha256))
            row.revoked_ms = wall_ms()
            session.add(row)
            detail = {"name": row.name, "kind": row.kind}
            change = Change("session.close", caller.person, detail, None, detail)
            audit.append(session, caller.tenant, caller.actor(Permission.SELF), change)

    def _count_try(self, name: str) -> str:
        """What is kept of the password of ``name``; empty where nothing may be tried."""
        with writing(self._engine) as session:
            row = session.get(Person, (self._tenant, name), with_for_update=True)
            # Read while the row is held: who waited for it would take the wait of another for a lock.
            now_ms = wall_ms()
            if row is None or not row.password or row.disabled_ms is not None or row.locked_until_ms > now_ms:
                return ""
            row.failed_logins += 1
            row.locked_until_ms = now_ms + lockout.wait_ms(row.failed_logins)
            session.add(row)
            return row.password

    def _refuse(self, name: str | None, source: str) -> None:
        """Record it: of a person each time, which their lock bounds; of others as a sum now and then."""
        if name is None:
            due = self._strangers.add(source, time.monotonic())
            if not due:
                return
            change = Change("session.refused", "", detail={"count": sum(due.values()), "sources": due})
        with writing(self._engine) as session:
            if name is not None:
                row = session.get_one(Person, (self._tenant, name))
                detail = {"failures": row.failed_logins, "locked_until_ms": row.locked_until_ms}
                change = Change("session.refused", name, detail=detail)
            audit.append(session, self._tenant, Actor.stranger(source), change)

    def _subject(self, id_token: str, nonce: str) -> str:
        now_s = time.monotonic()
        subject = self._require_issuer().subject(id_token, nonce, now_s)
        if not self._nonces.use(nonce, now_s):
            raise LoginRefused(_("this login took too long, or was used before; begin again"))
        return subject

    def _linked(self, session: Session, subject: str) -> Person:
        rows = session.exec(
            select(Person).where(Person.tenant == self._tenant, Person.subject == subject).limit(2)
        ).all()
        if len(rows) != 1 or rows[0].disabled_ms is not None:
            raise LoginRefused(
                _("nobody here is {subject!r}; an administrator says who is: fleet person link").format(
                    subject=subject[:200]
                )
            )
        return rows[0]

    def _open(self, session: Session, row: Person, source: str, how: str) -> Opened:
        now_ms, token = wall_ms(), new_token()
        opened = Opened(token, row.id, now_ms + SESSION_MS)
        session.add(row)
        is_over = (col(Token.kind) == SESSION) & (col(Token.expires_ms) <= now_ms)
        session.exec(
            delete(Token).where(col(Token.tenant) == self._tenant, col(Token.person) == row.id, is_over)
        )
        name = f"{SESSION}-{digest(token)[:8]}"
        session.add(
            Token(
                tenant=self._tenant,
                sha256=digest(token),
                person=row.id,
                name=name,
                kind=SESSION,
                created_ms=now_ms,
                expires_ms=opened.expires_ms,
            )
        )
        grants = grants_of(session, self._tenant, row.id)
        actor = Caller(self._tenant, row.id, grants, digest(token), source).actor(Permission.SELF)
        change = Change("session.open", row.id, detail={"name": name, "how": how})
        audit.append(session, self._tenant, actor, change)
        return opened

    def _require_issuer(self) -> Issuer:
        if self._issuer is None:
            raise NoIssuer(_("this server knows no OIDC issuer"))
        return self._issuer
