"""Adding a device to the fleet: its signed request becomes a registered device and a certificate.

The device's private key is made where the device is, and never comes here.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine

from fleet_server.access.roles import Actor
from fleet_server.config import ServerConfig
from fleet_server.devices.registry import Newcomer, add_device
from fleet_server.link.authority import open_authority
from fleet_server.updates.office import open_office
from fleet_server.updates.repository import newest_root


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a new device needs to reach the broker, to prove itself there, and to trust updates.

    The roots are what it pins, as JSON; None before the first key ceremony.
    """

    certificate_pem: str
    ca_pem: str
    broker_host: str
    broker_port: int
    updates_url: str
    image_root: str | None
    director_root: str | None


def enroll(engine: Engine, config: ServerConfig, actor: Actor, new: Newcomer, csr_pem: str) -> Enrolled:
    """Register a device and sign its request.

    Raises:
        CsrRefused: the request is not one of this device.
        Conflict: there is a device of this name.
        AuthorityError: the fleet's key cannot be used.
    """
    authority = open_authority(config.authority, may_make=False)
    certificate = authority.issue_for_device(new.id, csr_pem.encode())
    updates = open_office(engine, config)
    published = updates.repository.current()
    trust = hashlib.sha256(authority.pem).hexdigest()
    add_device(engine, config.tenant, actor, new, certificate, trust)
    return Enrolled(
        certificate_pem=certificate.public_bytes(Encoding.PEM).decode(),
        ca_pem=authority.pem.decode(),
        broker_host=config.mqtt_host,
        broker_port=config.mqtt_port,
        updates_url=updates.url,
        image_root=newest_root(published.image_roots) if published else None,
        director_root=newest_root(published.director_roots) if published else None,
    )
