"""A new device's folder: its key and request, made here, and what the server gave for them.

The key never leaves the folder. Adding is safe to repeat: the same key asks again until there is
a certificate.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_console.commands.keys import section, write_roots
from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _
from fleet_signing.files import replace_durably

KEY: Final = "key.pem"
CERTIFICATE: Final = "cert.pem"
CA: Final = "ca.pem"
CONFIGURATION: Final = "agent.toml"

_SKELETON: Final = """\
# The agent of {device}. See whether it is right:  edge-agent check --config agent.toml
# Run it:                                          edge-agent run --config agent.toml
# Paths are relative to this file.
device = {device_text}
profile = {profile}
data = "data"

[broker]
host = {host}
port = {port}
ca = "ca.pem"
certificate = "cert.pem"
key = "key.pem"

# Where the certificate is renewed.
[server]
url = {server}

{updates}

# What it measures: one [[sensors]] each, with its registers. For example a pressure in bar that a
# Modbus TCP server holds as a 32-bit float from register 0 on, asked once a second:
#
# [[sensors]]
# kind = "modbus"
# name = "cabinet"
# host = "192.0.2.10"
# port = 502
# unit = 1
# interval_s = 1.0
#
#   [[sensors.registers]]
#   metric = "pressure"
#   unit = "bar"
#   address = 0
#   table = "input"
#   type = "float32"

# Or a recording, one row every ten seconds:
#
# [[sensors]]
# kind = "replay"
# name = "last-spring"
# path = "flow.csv"
# interval_s = 10.0
# columns = {{ flow = "l/s measured" }}
# units = {{ flow = "l/s" }}

# What it concludes: a model's folder, and the policy that reads its answers.
#
# [[models]]
# folder = "models/leak"
# policy = "models/leak/policy.toml"
"""

_NO_UPDATES: Final = """\
# Signed updates come from the server once a key ceremony was held (fleet key ceremony). Then run
# 'fleet key roots --out .' here, and take these four lines in:
#
# {section}"""


def provide_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in ``folder``; made, readable by its owner alone, where there is none.

    Raises:
        ConsoleError: there is a device in the folder already, or the key cannot be used.
    """
    if (folder / CERTIFICATE).exists():
        raise ConsoleError(
            _("{folder} holds a device already; choose another folder with --out").format(folder=folder)
        )
    path = folder / KEY
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _make_folder(folder)
        _write(path, pem, 0o600)
    except (OSError, ValueError, TypeError) as error:
        raise ConsoleError(
            _("{path} cannot be used ({reason}); remove it to make a new key").format(path=path, reason=error)
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConsoleError(_("{path} is no P-256 key; remove it to make a new one").format(path=path))
    return key


def request_for(device: str, key: ec.EllipticCurvePrivateKey) -> str:
    """The certificate request of ``device``, signed by its key, in PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def write_device(folder: Path, device: str, profile: str, enrolled: Mapping[str, Any]) -> None:
    """Write what the server gave, and a configuration to go on from; the certificate last, as a seal.

    An ``agent.toml`` that is there already is left as it is.
    """
    _write(folder / CA, str(enrolled["ca_pem"]).encode(), 0o644)
    has_roots = bool(enrolled["image_root"] and enrolled["director_root"])
    if has_roots:
        write_roots(folder, enrolled["image_root"], enrolled["director_root"])
    if not (folder / CONFIGURATION).exists():
        updates = updates_section(str(enrolled["updates_url"]), has_roots=has_roots)
        broker = (str(enrolled["broker_host"]), int(enrolled["broker_port"]))
        text = skeleton(device, profile, broker, str(enrolled["server_url"]), updates)
        _write(folder / CONFIGURATION, text.encode(), 0o644)
    _write(folder / CERTIFICATE, str(enrolled["certificate_pem"]).encode(), 0o644)


def updates_section(url: str, *, has_roots: bool) -> str:
    """The part of the configuration about updates; a comment where there is nothing yet to trust."""
    known = section(url)
    return known if has_roots else _NO_UPDATES.format(section=known.replace("\n", "\n# "))


def skeleton(device: str, profile: str, broker: tuple[str, int], server: str, updates: str) -> str:
    """The agent's configuration as far as it is known when the device is added.

    ``broker`` is its host and port, ``server`` the address of the HTTPS listener for devices.
    """
    host, port = broker
    return _SKELETON.format(
        device=device,
        device_text=json.dumps(device),
        profile=json.dumps(profile),
        host=json.dumps(host),
        port=port,
        server=json.dumps(server),
        updates=updates,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, whatever happens meanwhile."""
    try:
        replace_durably(path, content, mode)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> ConsoleError:
    return ConsoleError(
        _("{path} cannot be written ({reason}); choose another folder with --out").format(
            path=path, reason=error.strerror
        )
    )
