"""The lists of the revoked over HTTPS, for brokers that are not ours; they are signed and public.

``/v1/device/crl`` gives all of them in PEM, ``/v1/device/crl/ISSUER`` in DER the one of the issuing
authority with that key identifier (hexadecimal, as in the certificates that it signed).
"""

import re
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fleet_server.authority.providing import CRL_FILE

PATH: Final = "/v1/device/crl"

_BLOCK: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\n?", re.DOTALL)
_HEADERS: Final = {"Cache-Control": "no-cache"}


def crl_routes(broker: Path) -> list[Route]:
    """The routes, for the lists that are kept in the folder ``broker``."""
    path = broker / CRL_FILE

    async def everyone(_request: Request) -> Response:
        content = await run_in_threadpool(path.read_bytes)
        return Response(content, headers=_HEADERS, media_type="application/x-pem-file")

    async def one(request: Request) -> Response:
        content = await run_in_threadpool(_of_issuer, path, request.path_params["issuer"])
        if content is None:
            return PlainTextResponse("not there\n", HTTPStatus.NOT_FOUND)
        return Response(content, headers=_HEADERS, media_type="application/pkix-crl")

    return [Route(PATH, everyone), Route(f"{PATH}/{{issuer}}", one)]


def _of_issuer(path: Path, issuer: str) -> bytes | None:
    for block in _BLOCK.findall(path.read_bytes()):
        found = x509.load_pem_x509_crl(block)
        signer = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        if signer is not None and signer.hex() == issuer:
            return found.public_bytes(Encoding.DER)
    return None
