"""What the doctor touches: disk, key, broker, runtimes. Each probe asks one question and leaves no trace.

The broker is met in TLS alone. A connection in MQTT would be this device's own and would throw a
running agent out of its session.
"""

import importlib.util
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from edge_agent.allowance import MIB
from edge_agent.config import Broker
from edge_agent.identity.identity import Identity
from edge_agent.inference.session import PACKAGES
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _

_COMMIT_BYTES: Final = 4096
"""A page of the store, which a commit writes at least."""

_COMMITS: Final = 20
_COMMITS_S: Final = 3.0
"""So many commits are timed, or as many as fit in these seconds on a card that takes longer."""

_CONNECT_S: Final = 5.0
_ALERT_S: Final = 0.5
"""How long a broker is given to refuse: in TLS 1.3 it judges the certificate after the handshake."""

_IMPORT_S: Final = 60.0
_IMPORT: Final = """\
import sys
from edge_agent.inference.backends import require
from fleet_protocol.manifest import Runtime
try:
    require(Runtime(sys.argv[1]))
except ImportError as error:
    sys.exit(str(error).strip()[-300:])
"""


def existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that is there already."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def free_mib(folder: Path) -> int:
    """MiB that a process without privileges may still write where ``folder`` is or will be."""
    return shutil.disk_usage(existing(folder)).free // MIB


@dataclass(frozen=True, slots=True)
class CommitSpeed:
    """How long the disk takes to write a page and sync it, in milliseconds."""

    median_ms: float
    worst_ms: float


def commit_speed(folder: Path) -> CommitSpeed:
    """Time some commits where ``folder`` is or will be.

    Raises:
        OSError: it cannot be written.
    """
    times: list[float] = []
    page = os.urandom(_COMMIT_BYTES)
    with tempfile.TemporaryFile(dir=existing(folder), buffering=0) as file:
        until = time.monotonic() + _COMMITS_S
        while len(times) < _COMMITS and (not times or time.monotonic() < until):
            started = time.perf_counter()
            os.pwrite(file.fileno(), page, len(times) * _COMMIT_BYTES)
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1000)
    return CommitSpeed(median(times), max(times))


def readable_by_others(file: Path) -> bool:
    """Whether anybody but its owner may do anything with ``file``.

    Raises:
        OSError: it is not there.
    """
    return bool(stat.S_IMODE(file.stat().st_mode) & 0o077)


def broker_fault(broker: Broker, identity: Identity | None, clock: ClockState) -> str:
    """Why ``broker`` cannot be met as ``identity``, or by TCP at all without one; empty if it can."""
    try:
        with socket.create_connection((broker.host, broker.port), timeout=_CONNECT_S) as plain:
            return _tls_fault(plain, broker, identity.tls_context(clock)) if identity else ""
    except TimeoutError:
        return _("no answer within {seconds:g} s").format(seconds=_CONNECT_S)
    except ssl.SSLCertVerificationError as error:
        return _("its certificate is not accepted: {reason}").format(reason=error.verify_message)
    except ssl.SSLError as error:
        return _("it does not accept this device: {reason}").format(reason=error.reason or error)
    except OSError as error:
        return str(error.strerror or error)


def _tls_fault(plain: socket.socket, broker: Broker, context: ssl.SSLContext) -> str:
    with context.wrap_socket(plain, server_hostname=broker.host) as secure:
        return "" if _stays_open(secure) else _("it hangs up")


def _stays_open(secure: ssl.SSLSocket) -> bool:
    """Whether the other side waits for us to speak, as a broker does that accepts us."""
    secure.settimeout(_ALERT_S)
    try:
        return bool(secure.recv(1))
    except TimeoutError:
        return True


def import_fault(runtime: Runtime) -> str | None:
    """Why ``runtime`` cannot be used; empty if it can, None if it is not installed.

    It is imported in a process of its own: some take the process with them when they fail.
    """
    if importlib.util.find_spec(PACKAGES[runtime]) is None:
        return None
    command = [sys.executable, "-P", "-c", _IMPORT, runtime]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=_IMPORT_S)
    except subprocess.TimeoutExpired:
        return _("importing it takes longer than {seconds:g} s").format(seconds=_IMPORT_S)
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip()
    return said or _("importing it ends with status {code}").format(code=done.returncode)
