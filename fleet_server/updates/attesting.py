"""Takes in what devices say of their versions, signed: whose word it is, how fresh, and what changed.

Online it answers a nonce of a minute; a courier's receipt answers the one that its bundle carried. Whoever
knows no key learns nothing: a stranger's signature is checked against a key that nobody has.
"""

import hashlib
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.errors import VersionError
from fleet_protocol.texts import _
from fleet_protocol.versions import ALGORITHM, MAX_JWS, TYPE, VersionReport, decode
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.callers import Paces, Rate
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Device, Receipt, VersionStatement
from fleet_server.errors import DeviceRefused, NotFound, Unattested
from fleet_server.identity.assertions import decoy_pem
from fleet_server.identity.device_tokens import TokenDesk, read_token_key
from fleet_server.identity.revoking import is_revoked
from fleet_server.updates.attested import COURIER, ONLINE, latest, report_in
from fleet_server.updates.bundle_nonces import LIFE_MS, BundleNonces

KEPT: Final = 50
"""Statements of one device; each of them said something new."""

PER_S: Final = 1.0
BURST: Final = 60.0
"""Reports of one device: one after each look."""

_HEADER: Final = {"alg", "typ", "kid"}
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}\Z")
_NO_SERIAL: Final = "0"
_DAY_MS: Final = 86_400_000


class Said(NamedTuple):
    """A report whose signature was checked: the certificate behind it, and the proof."""

    report: VersionReport
    certificate: Certificate
    jws: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report. ``superseded``: the device has said later things since; it is only noted."""

    device: str
    attested_ms: int
    changed: bool
    settled: bool
    superseded: bool = False


class ReportDesk:
    """Takes in what devices send over HTTPS; one for a process."""

    def __init__(self, engine: Engine, config: ServerConfig, tokens: TokenDesk) -> None:
        self._engine: Final = engine
        self._tenant: Final = config.tenant
        self._tokens: Final = tokens
        self._decoy: Final = decoy_pem()
        self._paces: Final = Paces(Rate(PER_S, BURST))

    def take(self, jws: str, source: str) -> Taken:
        """Take in a report that came from ``source``.

        Raises:
            DeviceRefused: it proves nothing, is not fresh, or comes too often.
        """
        self._tokens.admit(source)
        try:
            return self._take(opened(self._engine, self._tenant, jws, self._decoy), source)
        except Unattested as error:
            raise DeviceRefused(
                HTTPStatus.BAD_REQUEST,
                "invalid_report",
                str(error),
                _("Compare key, certificate and device id; if they are right, enroll the device again."),
            ) from None

    def _take(self, said: Said, source: str) -> Taken:
        device = said.report.device
        if not self._paces.allows(device, time.monotonic()):
            raise DeviceRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                _("{device} reports too often").format(device=device),
                _("Wait a minute and try again."),
            )
        self._tokens.scope_of(said.certificate)
        self._tokens.spend(said.report.nonce)
        with writing(self._engine) as session:
            return _keep_online(session, self._tenant, said, Actor.device(device, source))


def import_receipt(engine: Engine, config: ServerConfig, said: Said, actor: Actor) -> Taken:
    """Take in what a courier brought, as ``actor`` hands it over.

    The certificate may have expired meanwhile: a device without a network cannot renew it, and a receipt
    gives nothing to whoever holds the key. It must not have been revoked.

    Raises:
        Unattested: it answers no bundle of ours, another device's, one of long ago, or was brought before.
    """
    now_ms = wall_ms()
    nonces = BundleNonces(read_token_key(config.token_key))
    issued_ms = nonces.issued_ms(said.report.nonce, said.report.device, now_ms)
    if is_revoked(said.certificate):
        raise Unattested(_("the certificate that signed the receipt was revoked"))
    with writing(engine) as session:
        return _keep_carried(session, config.tenant, said, actor, issued_ms)


def opened(engine: Engine, tenant: str, jws: str, decoy: str) -> Said:
    """What ``jws`` says, signed by a key that one of the fleet's certificates is for.

    Raises:
        Unattested: it was not, or it is no report.
    """
    serial = _serial_of(jws)
    with Session(engine) as session:
        row = session.get(Certificate, (tenant, serial))
    content = _checked(jws, decoy if row is None else row.pem)
    try:
        report = decode(content)
    except VersionError as error:
        raise Unattested(str(error)) from None
    if row is None or row.device != report.device:
        raise _forged()
    return Said(report, row, jws)


def _serial_of(jws: str) -> str:
    if len(jws) > MAX_JWS:
        raise Unattested(_("a report has at most {most} bytes").format(most=MAX_JWS))
    try:
        header = jwt.get_unverified_header(jws)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unattested(_("this is no signed version report")) from None
    if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or not _HEADER.issuperset(header):
        raise Unattested(_("this is no signed version report"))
    serial = header.get("kid")
    return serial if isinstance(serial, str) and _SERIAL.match(serial) else _NO_SERIAL


def _checked(jws: str, certificate_pem: str) -> bytes:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _forged()
    try:
        content: Any = jwt.api_jws.decode(jws, key, algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError):
        raise _forged() from None
    return bytes(content)


def _forged() -> Unattested:
    return Unattested(_("it is not signed by the device that it speaks of, or was altered on its way"))


def _keep_online(session: Session, tenant: str, said: Said, actor: Actor) -> Taken:
    """Keep the last word of a device that answered a nonce of this minute."""
    now_ms = wall_ms()
    _require(session, tenant, said)
    last = latest(session, tenant, [said.report.device]).get(said.report.device)
    changed = _store(session, tenant, said, last, way=ONLINE, issued_ms=now_ms, now_ms=now_ms)
    if changed:
        append(session, tenant, actor, _change("device.attest", said, last))
    return Taken(said.report.device, now_ms, changed, said.report.is_settled)


def _keep_carried(session: Session, tenant: str, said: Said, actor: Actor, issued_ms: int) -> Taken:
    """Keep a receipt, if nothing later was said since; remember its nonce either way."""
    now_ms, report = wall_ms(), said.report
    _require(session, tenant, said)
    _spend(session, tenant, said, issued_ms, now_ms)
    last = latest(session, tenant, [report.device]).get(report.device)
    superseded = last is not None and not _is_later(report, issued_ms, last)
    changed = not superseded and _store(
        session, tenant, said, last, way=COURIER, issued_ms=issued_ms, now_ms=now_ms
    )
    more = {
        "issued_ms": issued_ms,
        "settled": report.is_settled,
        "superseded": superseded,
        "expired_days": max(0, (now_ms - said.certificate.not_after_ms) // _DAY_MS),
    }
    append(session, tenant, actor, _change("receipt.import", said, last, **more))
    return Taken(report.device, now_ms, changed, report.is_settled, superseded)


def _require(session: Session, tenant: str, said: Said) -> None:
    """Hold the device, and see to it that the certificate still counts."""
    if session.get(Device, (tenant, said.report.device), with_for_update=True) is None:
        raise NotFound(_("there is no device {device!r}").format(device=said.report.device))
    if is_revoked(session.get(Certificate, (tenant, said.certificate.serial))):
        raise Unattested(_("the certificate that signed it was revoked"))


def _spend(session: Session, tenant: str, said: Said, issued_ms: int, now_ms: int) -> None:
    """Use the nonce of a receipt up: a final one closes it, an earlier one leaves it to later ones."""
    report, digest = said.report, hashlib.sha256(said.jws.encode()).hexdigest()
    key = (tenant, hashlib.sha256(report.nonce.encode()).hexdigest())
    row = session.get(Receipt, key)
    if row is not None:
        if row.sha256 == digest:
            raise Unattested(_("this receipt was imported before"))
        if row.closed_ms is not None:
            raise Unattested(_("the final receipt of this bundle was imported before"))
        if row.journal == report.journal and report.happened <= row.happened:
            raise Unattested(_("a later receipt of this bundle was imported before"))
    row = row or Receipt(
        tenant=tenant, nonce_sha256=key[1], device=report.device, issued_ms=issued_ms,
        expires_ms=issued_ms + LIFE_MS, journal="", happened=0, sha256="",
    )  # fmt: skip
    row.journal, row.happened, row.sha256 = report.journal, report.happened, digest
    row.closed_ms = now_ms if report.is_settled else None
    session.add(row)
    session.flush()


def _is_later(report: VersionReport, issued_ms: int, last: VersionStatement) -> bool:
    """Whether ``report``, signed some time after ``issued_ms``, says no less than the device's last word."""
    before = report_in(last)
    if before.journal == report.journal:
        return report.happened >= before.happened
    return issued_ms >= last.attested_ms


def _store(
    session: Session,
    tenant: str,
    said: Said,
    last: VersionStatement | None,
    *,
    way: str,
    issued_ms: int,
    now_ms: int,
) -> bool:
    """Make ``said`` the device's last word; whether it says something new."""
    state = _state(said.report)
    changed = last is None or last.state_sha256 != state
    row = (
        VersionStatement(tenant=tenant, device=said.report.device, state_sha256=state, first_ms=now_ms,
                         way="", serial="", attested_ms=0, issued_ms=0, document="", jws="")
        if last is None or changed
        else last
    )  # fmt: skip
    row.way, row.serial, row.attested_ms, row.issued_ms = way, said.certificate.serial, now_ms, issued_ms
    row.document, row.jws = msgspec.json.encode(said.report).decode(), said.jws
    session.add(row)
    session.flush()
    if changed:
        _forget(session, tenant, said.report.device)
    return changed


def _forget(session: Session, tenant: str, device: str) -> None:
    rows = session.exec(
        select(VersionStatement)
        .where(VersionStatement.tenant == tenant, VersionStatement.device == device)
        .order_by(col(VersionStatement.number).desc())
        .offset(KEPT)
    )
    for row in rows:
        session.delete(row)


def _state(report: VersionReport) -> str:
    """A digest of what ``report`` says of versions, whenever it says it."""
    updates = [msgspec.structs.replace(each, done=0, size=0) for each in report.updates]
    known = (report.agent, report.profile, report.journal, report.happened, report.installed, updates,
             report.failed, report.refused)  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(known)).hexdigest()


def _change(action: str, said: Said, last: VersionStatement | None, **more: object) -> Change:
    report = said.report
    detail = {
        "serial": said.certificate.serial,
        "agent": report.agent,
        "installed": {f"{each.kind}/{each.name}": each.release for each in report.installed},
        "jws_sha256": hashlib.sha256(said.jws.encode()).hexdigest(),
        **more,
    }
    return Change(action, report.device, last.state_sha256 if last else None, _state(report), detail)
