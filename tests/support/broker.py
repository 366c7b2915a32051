"""A real mosquitto with the settings of the fleet: mutual TLS, names from certificates, access rules."""

import contextlib
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from fleet_protocol.topics import device_access
from tests.support.authority import Credentials, TestAuthority
from tests.support.waiting import free_port, wait_until

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
SERVICE = "svc.ingest-1"

_CONFIG = """\
listener {port} 127.0.0.1
cafile {ca}
certfile {certificate}
keyfile {key}
crlfile {crl}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {acl}
persistence true
persistence_location {folder}/
autosave_interval 5
max_queued_messages 1000000
max_queued_bytes 268435456
max_inflight_messages 1000
set_tcp_nodelay true
log_dest file {folder}/mosquitto.log
log_type all
user root
"""


class TestBroker:
    """Starts, kills and starts again one mosquitto on one port."""

    __test__ = False

    def __init__(
        self, folder: Path, authority: TestAuthority, credentials: Credentials | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.authority = authority
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        own = credentials or authority.issue("localhost", folder=folder / "tls")
        acl = folder / "acl"
        rules = [f"pattern {access} {topic}" for access, topic in device_access()]
        service = [f"user {SERVICE}", "topic read argan/v1/#", "topic write argan/v1/#"]
        acl.write_text("\n".join([*service, "", *rules, ""]))
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            _CONFIG.format(
                port=self.port,
                ca=authority.ca,
                crl=authority.crl,
                certificate=own.certificate,
                key=own.key,
                acl=acl,
                folder=folder,
            )
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, "mosquitto listens")

    def kill(self) -> None:
        """SIGKILL: nothing is saved."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, if it still runs."""
        self._end(signal.SIGTERM)

    @property
    def log(self) -> str:
        """What it wrote so far."""
        file = self._folder / "mosquitto.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"mosquitto ended: {self.log[-2000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
