"""A device gets its next certificate: over HTTPS, by the token that its present one is worth.

The certificate before stays valid until it ends. Who asks again early is given again what it was given
last, so that an answer that was lost costs nothing, and asking often brings nothing.
"""

import time
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from cryptography import x509
from sqlalchemy import Engine
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.signing_requests import requested_key
from fleet_server.callers import Paces, Rate
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Device
from fleet_server.devices.certificates import certificate_row, key_sha256
from fleet_server.errors import CsrRefused, DeviceRefused
from fleet_server.identity.device_tokens import DeviceCaller, Scope, unauthorized
from fleet_server.identity.token_routes import bad_request, device_of, read_body

CERTIFICATE_PATH: Final = "/v1/device/certificate"

PER_HOUR: Final = 6.0
BURST: Final = 12.0
"""Certificates of one device; a fleet's own pace is one in weeks."""


class Wish(msgspec.Struct, frozen=True):
    """What a device sends: its request in PEM, signed by the key that is to be certified."""

    csr_pem: str


class Renewed(NamedTuple):
    """What it gets: its certificate with who issued it, and whom it is to trust from now on."""

    certificate_pem: str
    ca_pem: str


class RenewalDesk:
    """Gives out the next certificates; one for a process."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine: Final = engine
        self._config: Final = config
        self._paces: Final = Paces(Rate(PER_HOUR / 3600, BURST))

    def renew(self, caller: DeviceCaller, csr_pem: str) -> Renewed:
        """The next certificate of ``caller``, or the last one once more if that is fresh.

        Raises:
            DeviceRefused: the request is not one of this device, it asks too often, or it was revoked.
            AuthorityError: the fleet's key cannot be used.
        """
        if not self._paces.allows(caller.device, time.monotonic()):
            raise DeviceRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                _("{device} asks for certificates too often").format(device=caller.device),
                _("Wait an hour and try again."),
            )
        authority = open_authority(self._config.authority, may_make=False)
        pem = self._standing(authority, caller, csr_pem) or self._next(authority, caller, csr_pem)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return Renewed(authority.chain(certificate).decode(), authority.pem.decode())

    def _standing(self, authority: Authority, caller: DeviceCaller, csr_pem: str) -> str | None:
        """The newest certificate of this key, if it is fresh and of the authorities of today."""
        try:
            key = requested_key(caller.device, csr_pem.encode())
        except CsrRefused as error:
            raise bad_request(str(error), "invalid_request") from None
        query = (
            select(Certificate)
            .where(Certificate.tenant == self._config.tenant, Certificate.device == caller.device)
            .where(Certificate.key_sha256 == key_sha256(key), col(Certificate.revoked_ms).is_(None))
            .order_by(col(Certificate.not_after_ms).desc())
        )
        with Session(self._engine) as session:
            last = session.exec(query).first()
        return last.pem if last is not None and _is_fresh(last, authority) else None

    def _next(self, authority: Authority, caller: DeviceCaller, csr_pem: str) -> str:
        """A new certificate, written down with its record before anybody sees it."""
        days = self._config.certificate_days
        certificate = authority.issue_for_device(caller.device, csr_pem.encode(), days)
        tenant = self._config.tenant
        row = certificate_row(tenant, caller.device, certificate, authority.trust_sha256)
        with writing(self._engine) as session:
            # Who revokes a device takes the same lock, and so finds this certificate too, or stops it.
            session.get(Device, (tenant, caller.device), with_for_update={"key_share": True})
            before = session.get(Certificate, (tenant, caller.serial))
            if before is None or before.revoked_ms is not None:
                raise unauthorized(_("the certificate behind the token was revoked"))
            session.add(row)
            append(session, tenant, Actor.device(caller.device, caller.source), _change(caller, before, row))
            return row.pem


def _is_fresh(row: Certificate, authority: Authority) -> bool:
    """Whether more than half of its life is left, and nothing has changed that it was given with."""
    issuer = x509.SubjectKeyIdentifier.from_public_key(authority.device_issuer.certificate.public_key())
    return (
        row.trust_sha256 == authority.trust_sha256
        and row.issuer == issuer.digest.hex()
        and 2 * (row.not_after_ms - wall_ms()) > row.not_after_ms - row.not_before_ms
    )


def _change(caller: DeviceCaller, before: Certificate, after: Certificate) -> Change:
    late = caller.scope is Scope.RENEW
    detail = {
        "serial_before": before.serial,
        "serial": after.serial,
        "expired_ms": before.not_after_ms,
        "expires_ms": after.not_after_ms,
        "new_key": before.key_sha256 != after.key_sha256,
    }
    return Change(
        "certificate.renew_late" if late else "certificate.renew",
        caller.device,
        before.sha256,
        after.sha256,
        detail,
    )


async def _certificate(request: Request) -> Response:
    body = await read_body(request)
    return await run_in_threadpool(_answer, request, body)


def _answer(request: Request, body: bytes) -> Response:
    caller = device_of(request, Scope.DEVICE, Scope.RENEW)
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except msgspec.MsgspecError as error:
        raise bad_request(_("this is no request for a certificate: {reason}").format(reason=error)) from None
    desk: RenewalDesk = request.app.state.renewals
    return JSONResponse(desk.renew(caller, wish.csr_pem)._asdict(), headers={"Cache-Control": "no-store"})


ROUTES: Final = (Route(CERTIFICATE_PATH, _certificate, methods=["POST"]),)
