"""The lists of the revoked over HTTPS, for brokers that are not ours; they are signed and public.

``/v1/device/crl`` gives all of them in PEM, ``/v1/device/crl/ISSUER`` in DER the one of the issuing
authority with that key identifier (hexadecimal, as in the certificates that it signed).
"""

import re
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

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


class CrlFile:
    """The file of the lists, parsed once for each time that it is written, however often it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._read: _Read | None = None

    def current(self) -> "_Read":
        """What the file holds now; any thread may ask."""
        found, read = self._path.stat(), self._read
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if read is None or read.stamp != stamp:
            content = self._path.read_bytes()
            read = self._read = _Read(stamp, content, _by_issuer(content))
        return read


class _Read(NamedTuple):
    stamp: tuple[int, int, int]
    content: bytes
    by_issuer: dict[str, bytes]


def crl_routes(broker: Path) -> list[Route]:
    """The routes, for the lists that are kept in the folder ``broker``."""
    file = CrlFile(broker / CRL_FILE)

    async def everyone(_request: Request) -> Response:
        read = await run_in_threadpool(file.current)
        return Response(read.content, headers=_HEADERS, media_type="application/x-pem-file")

    async def one(request: Request) -> Response:
        read = await run_in_threadpool(file.current)
        content = read.by_issuer.get(request.path_params["issuer"])
        if content is None:
            return PlainTextResponse("not there\n", HTTPStatus.NOT_FOUND)
        return Response(content, headers=_HEADERS, media_type="application/pkix-crl")

    return [Route(PATH, everyone), Route(f"{PATH}/{{issuer}}", one)]


def _by_issuer(content: bytes) -> dict[str, bytes]:
    """Each list in DER, by the key identifier of the authority that signed it."""
    found: dict[str, bytes] = {}
    for block in _BLOCK.findall(content):
        crl = x509.load_pem_x509_crl(block)
        signer = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        if signer is not None:
            # The first one counts.
            found.setdefault(signer.hex(), crl.public_bytes(Encoding.DER))
    return found
