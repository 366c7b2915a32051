"""P-256 private keys in files of their own, unencrypted and for their owner alone."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_server.files import write_durably


def make_key_file(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new key, kept in ``path``.

    Raises:
        ConfigError: it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    write_durably(path, key_pem(key))
    return key


def read_key_file(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``path``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no unencrypted P-256 key in PEM.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:  # it is encrypted
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(path.name)  # noqa: TRY004 - what is wrong is the file's content
    return key


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """``key`` in PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
