"""The nonces that bundles carry to devices without a network: sealed, so that giving one out writes nothing.

A nonce names its device and when it was made, under a seal of this server's own key. What came in for one is
remembered (:class:`~fleet_server.database.models.Receipt`); what was never answered costs nothing.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

from fleet_protocol.texts import _
from fleet_protocol.versions import ReceiptRequest
from fleet_server.errors import Unattested

LIFE_MS: Final = 90 * 86_400_000
"""A courier is back within a season."""

_TIME: Final = 8
_RANDOM: Final = 16
_DEVICE: Final = 8
_SEAL: Final = 16


class BundleNonces:
    """The nonces of the server whose devices' tokens are sealed with ``key``."""

    def __init__(self, key: bytes) -> None:
        self._key: Final = hmac.digest(key, b"argan bundle nonce", hashlib.sha256)

    def request(self, device: str, now_ms: int) -> ReceiptRequest:
        """What a bundle for ``device`` asks for."""
        body = now_ms.to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM) + _short(device)
        nonce = base64.urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode()
        return ReceiptRequest(device=device, nonce=nonce, expires_ms=now_ms + LIFE_MS)

    def issued_ms(self, nonce: str, device: str, now_ms: int) -> int:
        """When ``nonce`` was put into a bundle for ``device``, ms since 1970.

        Raises:
            Unattested: it was not, or too long ago.
        """
        body = self._opened(nonce)
        if body is None:
            raise Unattested(_("the receipt answers a bundle that this server has not exported"))
        if body[-_DEVICE:] != _short(device):
            raise Unattested(
                _("the receipt is signed by {device} and answers a bundle for another device").format(
                    device=device
                )
            )
        issued_ms = int.from_bytes(body[:_TIME], "big")
        if now_ms - issued_ms > LIFE_MS:
            raise Unattested(
                _("the bundle was exported {days} days ago, and receipts count for {most}").format(
                    days=(now_ms - issued_ms) // 86_400_000, most=LIFE_MS // 86_400_000
                )
            )
        return issued_ms

    def _opened(self, nonce: str) -> bytes | None:
        try:
            content = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        body, seal = content[:-_SEAL], content[-_SEAL:]
        is_ours = len(body) == _TIME + _RANDOM + _DEVICE and hmac.compare_digest(seal, self._seal(body))
        return body if is_ours else None

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_SEAL]


def _short(device: str) -> bytes:
    return hashlib.sha256(device.encode()).digest()[:_DEVICE]
