"""A centre without its processes: a database, an authority, and the API on them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine
from starlette.applications import Starlette

from fleet_server.access.tokens import provide_token
from fleet_server.api.app import create_app
from fleet_server.api.limits import LIMITS, guarded
from fleet_server.audit.checkpoint_files import provide_audit_key
from fleet_server.authority.authority import open_authority
from fleet_server.config import ServerConfig, Settings, resolve
from fleet_server.database.engine import open_engine
from fleet_server.database.schema import upgrade
from fleet_server.database.service import beat
from fleet_server.files import make_folder
from fleet_server.guard import GUARD
from fleet_server.identity.device_tokens import provide_token_key
from fleet_server.link.mosquitto import ESCALATION, INGEST, ROLLOUTS
from fleet_server.updates.office import provide_keys


def make_centre(data: Path, settings: Settings | None = None) -> tuple[Engine, ServerConfig]:
    """A centre as ``serve`` makes it at its first start, with services that live."""
    data.mkdir()
    config = resolve(data, msgspec.structs.replace(settings or Settings(), mqtt_port=8883, api_port=8080))
    open_authority(config.authority, may_make=True)
    engine = open_engine(config.database_url)
    upgrade(engine)
    provide_token(engine, config.token, config.tenant)
    provide_keys(config)
    make_folder(config.device_certificate)
    provide_token_key(config.token_key)
    provide_audit_key(config)
    for service in (INGEST, ROLLOUTS, ESCALATION, GUARD):
        beat(engine, service, now_ms(), now_ms())
    return engine, config


@contextmanager
def answering(engine: Engine, config: ServerConfig) -> Iterator[httpx.Client]:
    """The API on a real socket, and a client with its token."""
    token = config.token.read_text().strip()
    with (
        served(guarded(create_app(engine, config), LIMITS)) as url,
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        ) as client,
    ):
        yield client


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """``app`` on a real socket of this machine; where it is reached."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def request_pem(name: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A certificate request for ``name``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
