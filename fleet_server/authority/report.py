"""What there is of roots and issuing authorities, for people and as JSON. Opens no key."""

from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fleet_protocol.texts import _
from fleet_server.authority.files import AuthorityState, read_state
from fleet_server.authority.issuing import issuer_key_id, key_id, short_id
from fleet_server.authority.key_store import root_key_path

AWAY = ""
"""Where the key is of a root whose key is not here."""


class Known(msgspec.Struct, frozen=True):
    """A root or an issuing authority. ``key`` is a file's name, a URI, or :data:`AWAY`."""

    kind: str
    id: str
    sha256: str
    until: datetime
    key: str
    issued_by: str


class Report(msgspec.Struct, frozen=True):
    """All of them, from the oldest to the newest; ``is_rolling`` while there are two roots."""

    is_rolling: bool
    authorities: list[Known]


def report(folder: Path) -> Report:
    """What ``folder`` holds.

    Raises:
        AuthorityError: it is missing or damaged.
    """
    state = read_state(folder)
    return Report(len(state.roots) > 1, [*_roots(folder, state), *_issuing(state)])


def name_of(certificate: x509.Certificate) -> str:
    """What people call an authority."""
    return short_id(key_id(certificate))


def lines(found: Report, now: datetime) -> list[str]:
    """``found`` in words, one line each."""
    return [_line(one, now) for one in found.authorities]


def _roots(folder: Path, state: AuthorityState) -> list[Known]:
    known = []
    for text in state.roots:
        certificate = x509.load_pem_x509_certificate(text.encode())
        key = root_key_path(folder, certificate)
        known.append(_known("root", certificate, key.name if key.exists() else AWAY))
    return known


def _issuing(state: AuthorityState) -> list[Known]:
    return [
        _known("issuing", x509.load_pem_x509_certificate(one.certificate.encode()), one.key)
        for one in state.issuing
    ]


def _known(kind: str, certificate: x509.Certificate, key: str) -> Known:
    return Known(
        kind=kind,
        id=name_of(certificate),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        until=certificate.not_valid_after_utc,
        key=key,
        issued_by=short_id(issuer_key_id(certificate) or key_id(certificate)),
    )


def _line(one: Known, now: datetime) -> str:
    kind = _("root") if one.kind == "root" else _("issuing, of root {id}").format(id=one.issued_by)
    until = _("until {date:%Y-%m-%d}") if one.until > now else _("EXPIRED on {date:%Y-%m-%d}")
    return _("{id}  {kind}\n    {until}, key {key}\n    SHA-256 {sha256}").format(
        id=one.id,
        kind=kind,
        until=until.format(date=one.until),
        key=one.key or _("not on this machine"),
        sha256=one.sha256,
    )
