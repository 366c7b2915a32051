"""Where the authority's keys are."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fleet_server.link.key_files import read_key_file


def open_key(folder: Path, place: str) -> ec.EllipticCurvePrivateKey:
    """The key at ``place``: a file's name in ``folder``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no unencrypted P-256 key in PEM.
    """
    return read_key_file(folder / place)
