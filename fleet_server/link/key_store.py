"""Where the authority's keys are: in files of its folder, or in a security module."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fleet_server.link.key_files import read_key_file
from fleet_server.link.key_uri import SCHEME, parse_uri
from fleet_server.link.security_module import open_module_key


def open_key(folder: Path, place: str) -> ec.EllipticCurvePrivateKey:
    """The key at ``place``: a file's name in ``folder``, or an RFC 7512 URI.

    Raises:
        AuthorityError: the security module or its key cannot be used.
        OSError: the file cannot be read.
        ValueError: it is no unencrypted P-256 key in PEM.
    """
    if place.startswith(SCHEME):
        return open_module_key(parse_uri(place))
    return read_key_file(folder / place)
