"""Certificate requests: what has to be right about one before its key is certified. Pure."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_protocol.texts import _
from fleet_server.authority.issuing import common_name
from fleet_server.errors import CsrRefused

MAX_CSR_BYTES: Final = 16 * 1024
"""A P-256 request has some 500 bytes; more is no request of ours."""


def requested_key(name: str, csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request for ``name`` alone; of its wishes nothing else is looked at.

    Raises:
        CsrRefused: the request is not a P-256 one signed by its own key, or asks for another name.
    """
    if len(csr_pem) > MAX_CSR_BYTES:
        raise CsrRefused(
            _("the certificate request is larger than {limit} bytes").format(limit=MAX_CSR_BYTES)
        )
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        public_key, is_signed = request.public_key(), request.is_signature_valid
        names = [attribute.value for attribute in request.subject]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CsrRefused(_("this is no certificate request in PEM: {reason}").format(reason=error)) from error
    if not is_signed:
        raise CsrRefused(_("the certificate request is not signed by its own key; make it again"))
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
        public_key.curve, ec.SECP256R1
    ):
        raise CsrRefused(_("the certificate request's key is not P-256; make the key with curve prime256v1"))
    if request.subject != common_name(name):
        raise CsrRefused(
            _("the certificate request names {names}, not {name!r} alone; make it with CN={name}").format(
                names=str(names)[:120], name=name
            )
        )
    return public_key
