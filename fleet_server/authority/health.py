"""Whether roots or issuing authorities are close to their end. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from fleet_protocol.texts import _
from fleet_server.authority.authority import Authority

ISSUING_ENDS: Final = "authority.issuing_ends"
ROOT_ENDS: Final = "authority.root_ends"
CODES: Final = (ISSUING_ENDS, ROOT_ENDS)

ISSUING_LEFT: Final = timedelta(days=180)
"""Half a year to bring a request to wherever the root's key is. Nothing lasts longer than its issuer, so
the server's own certificates, of a year, are bounded by it before."""

ROOT_LEFT: Final = timedelta(days=730)
"""Two years for a rollover: every device has to come by for a new certificate, also the ones in a drawer."""


def judge(authority: Authority, now: datetime) -> dict[str, str]:
    """The codes that hold at ``now``, each with its detail."""
    codes = {}
    issuing = [authority.newest_under(root) for root in authority.roots]
    if any(one is None or _left(one.certificate, now) < ISSUING_LEFT for one in issuing):
        ends = [one.certificate for one in issuing if one is not None]
        codes[ISSUING_ENDS] = _ends(ends) if len(ends) == len(issuing) else _("one has expired")
    if _left(authority.roots[-1], now) < ROOT_LEFT:
        codes[ROOT_ENDS] = _ends(authority.roots[-1:])
    return codes


def _left(certificate: x509.Certificate, now: datetime) -> timedelta:
    return certificate.not_valid_after_utc - now


def _ends(certificates: Sequence[x509.Certificate]) -> str:
    ends = min(one.not_valid_after_utc for one in certificates)
    return _("until {date:%Y-%m-%d}").format(date=ends)
