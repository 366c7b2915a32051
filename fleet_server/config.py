"""The server's settings: what was given or chosen, remembered in its data folder.

What is not given at a start is as it was at the last one, so that a server never comes back on
another port, or on an empty database, because somebody forgot an option.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from fleet_protocol.texts import _
from fleet_server.errors import ConfigError
from fleet_server.files import write_durably

SETTINGS_FILE: Final = "server.json"
ENDPOINTS_FILE: Final = "endpoints.json"
AUDIT_FOLDER: Final = "audit"
CHECKPOINTS_FILE: Final = "checkpoints.jsonl"
TOKEN_FILE: Final = "api.token"  # noqa: S105 - a file's name

EMBEDDED: Final = "embedded"
"""In place of a URL: the server's own broker, or its own SQLite file."""

MQTT_TLS_PORT: Final = 8883
"""What IANA gives to MQTT over TLS; meant where a broker's URL names no port."""

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

DEVICE_DAYS: Final = 30
"""How long a device's certificate lasts where nothing else is said: what a stolen key is worth."""

GRACE_DAYS: Final = 180
"""For how long after its end a certificate still gets its device another one: a board in a drawer."""

_MOST_DEVICE_DAYS: Final = 825
_MOST_GRACE_DAYS: Final = 3650
_DATABASES: Final = frozenset({"sqlite", "postgresql"})
_LAST_PORT: Final = 65535
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}\Z")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a start was told or chose. A port of 0 is not chosen yet.

    ``api_certificate`` and ``api_key`` are files that the API proves itself with, empty for a certificate
    of the fleet.

    ``oidc_issuer`` is where people can log in beside their passwords, empty for nowhere, and
    ``oidc_client_id`` the name of this fleet there.

    ``central_model`` is the folder of the model that answers devices' questions, empty for none;
    ``inference_url`` the server that runs it, empty for this one's own process. What devices may
    ask an hour is bounded for each of them and for all of a tenant together. Their certificates last
    ``certificate_days``, and can be renewed for ``grace_days`` after that. A device's messages are taken at
    the steady rates ``device_messages_per_s`` and ``device_bytes_per_s``, and beside them up to
    ``device_backlog_messages`` and ``device_backlog_bytes`` at once: two of the largest spools that a
    firmware profile gives, and 23 days at a message a second.

    ``audit_checkpoints`` is the file that gets the signed checkpoints of the record of changes, empty for the
    one in the data folder.
    """

    database_url: str = EMBEDDED
    mqtt_url: str = EMBEDDED
    mqtt_port: int = 0
    broker_host: str = "localhost"
    api_host: str = "127.0.0.1"
    api_port: int = 0
    api_certificate: str = ""
    api_key: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    device_port: int = 0
    tenant: str = "default"
    central_model: str = ""
    inference_url: str = ""
    device_questions_per_hour: float = 3600.0
    tenant_questions_per_hour: float = 36_000.0
    certificate_days: int = DEVICE_DAYS
    device_messages_per_s: float = 100.0
    device_bytes_per_s: float = 1_048_576.0
    device_backlog_messages: float = 2_000_000.0
    device_backlog_bytes: float = 2_147_483_648.0
    grace_days: int = GRACE_DAYS
    audit_checkpoints: str = ""


class Oidc(NamedTuple):
    """An issuer whose word on who somebody is counts, and the name of this fleet there."""

    issuer: str
    client_id: str


class Tls(NamedTuple):
    """What a listener proves itself with: its certificate, with the chain behind it, and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that the server's processes need to find each other.

    ``mqtt_host`` and ``mqtt_port`` are where services and devices reach the broker; ``embedded``
    says whether it is a child of this server. ``device_host`` and ``device_port`` are where devices
    fetch updates. ``api_tls`` is None where the API has a certificate of the fleet, ``oidc`` where
    people have passwords alone.
    ``central_model`` and ``inference_url`` are None where nothing was given.
    """

    data: Path
    database_url: str
    embedded: bool
    mqtt_host: str
    mqtt_port: int
    api_host: str
    api_port: int
    api_tls: Tls | None
    oidc: Oidc | None
    device_host: str
    device_port: int
    tenant: str
    central_model: Path | None
    inference_url: str | None
    device_questions_per_hour: float
    tenant_questions_per_hour: float
    certificate_days: int
    device_messages_per_s: float
    device_bytes_per_s: float
    device_backlog_messages: float
    device_backlog_bytes: float
    grace_days: int
    audit_checkpoints: Path

    @property
    def authority(self) -> Path:
        """The folder of the fleet's certificate authority."""
        return self.data / "authority"

    @property
    def ca(self) -> Path:
        """The roots that every certificate of the fleet goes back to; two while one is exchanged."""
        return self.authority / "ca.pem"

    @property
    def broker(self) -> Path:
        """The folder of the broker: its certificate, configuration, store and log."""
        return self.data / "broker"

    @property
    def updates(self) -> Path:
        """The folder of signed updates: the server's own keys, both repositories, the artifacts."""
        return self.data / "updates"

    @property
    def audit(self) -> Path:
        """The folder of what signs the record of changes: the key, and this server's own checkpoints."""
        return self.data / AUDIT_FOLDER

    @property
    def own_checkpoints(self) -> Path:
        """This server's own checkpoints; the same as ``audit_checkpoints`` where no other file was given."""
        return self.audit / CHECKPOINTS_FILE

    @property
    def api_name(self) -> str:
        """Under which name people reach the API: where it listens, or else as devices reach this server."""
        return self.device_host if self.api_host in {"0.0.0.0", "::"} else self.api_host  # noqa: S104

    @property
    def own_api_certificate(self) -> Path:
        """The folder of the API's certificate of the fleet."""
        return self.data / "api"

    @property
    def device_certificate(self) -> Path:
        """The folder of the certificate that devices meet over HTTPS."""
        return self.data / "device"

    @property
    def token_key(self) -> Path:
        """The key that devices' access tokens are sealed with."""
        return self.data / "device" / "token.key"

    @property
    def device_url(self) -> str:
        """Where devices reach this server over HTTPS."""
        host = f"[{self.device_host}]" if ":" in self.device_host else self.device_host
        return f"https://{host}:{self.device_port}"

    @property
    def logs(self) -> Path:
        """The folder of the services' logs."""
        return self.data / "logs"

    @property
    def endpoints(self) -> Path:
        """The file that says where the running server is reached."""
        return self.data / ENDPOINTS_FILE

    @property
    def token(self) -> Path:
        """The file with the API token of whoever may read this folder."""
        return self.data / TOKEN_FILE

    def service(self, name: str) -> Path:
        """The folder with ``cert.pem`` and ``key.pem`` of the service ``name``."""
        return self.data / "services" / name


def certificate_in(folder: Path) -> Tls:
    """The files of a certificate that the fleet's authority keeps in ``folder``."""
    return Tls(folder / "cert.pem", folder / "key.pem")


def read_settings(data: Path) -> Settings:
    """What the last start remembered; the defaults where there was none.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    path = data / SETTINGS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        return Settings()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            _("{path} cannot be used ({reason}); correct it, or remove it to begin with defaults").format(
                path=path, reason=error
            )
        ) from error


def save_settings(data: Path, settings: Settings) -> None:
    """Remember ``settings`` for the services, and for the next start. It may hold a password: 0600."""
    write_durably(data / SETTINGS_FILE, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")


def load(data: Path) -> ServerConfig:
    """The configuration of the server that runs on ``data``; for its services."""
    return resolve(data, read_settings(data))


def resolve(data: Path, settings: Settings) -> ServerConfig:
    """``settings`` with their defaults filled in.

    Raises:
        ConfigError: a URL or a port that cannot be used.
    """
    embedded = settings.mqtt_url == EMBEDDED
    host, port = (settings.broker_host, settings.mqtt_port) if embedded else _broker(settings.mqtt_url)
    return ServerConfig(
        data=data,
        database_url=_database(data, settings.database_url),
        embedded=embedded,
        mqtt_host=_host(host),
        mqtt_port=_port(port),
        api_host=_host(settings.api_host),
        api_port=_port(settings.api_port),
        api_tls=_tls(settings),
        oidc=_oidc(settings),
        device_host=_host(settings.broker_host),
        device_port=_port(settings.device_port),
        tenant=settings.tenant,
        central_model=Path(settings.central_model) if settings.central_model else None,
        inference_url=_inference(settings.inference_url) if settings.inference_url else None,
        device_questions_per_hour=_budget(settings.device_questions_per_hour),
        tenant_questions_per_hour=_budget(settings.tenant_questions_per_hour),
        certificate_days=_days(settings.certificate_days),
        device_messages_per_s=_rate(settings.device_messages_per_s),
        device_bytes_per_s=_rate(settings.device_bytes_per_s),
        device_backlog_messages=_rate(settings.device_backlog_messages),
        device_backlog_bytes=_rate(settings.device_backlog_bytes),
        grace_days=_grace(settings.grace_days),
        audit_checkpoints=Path(settings.audit_checkpoints or data / AUDIT_FOLDER / CHECKPOINTS_FILE),
    )


def without_password(url: str) -> str:
    """``url`` as it may be shown."""
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@", 1)


def _database(data: Path, url: str) -> str:
    if url == EMBEDDED:
        return f"sqlite:///{data / 'fleet.db'}"
    if urlsplit(url).scheme not in _DATABASES:
        raise ConfigError(
            _(
                "{url!r} is no database URL; use postgresql://USER@HOST/NAME, sqlite:///PATH or 'embedded'"
            ).format(url=without_password(url))
        )
    return url


def _broker(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme != "mqtts":
        raise ConfigError(
            _(
                "{url!r} is no broker URL; use mqtts://HOST[:PORT] (TLS proves who speaks) or 'embedded'"
            ).format(url=url)
        )
    return host, port or MQTT_TLS_PORT


def _inference(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            _("{url!r} is no URL of an inference server; use http://HOST:PORT or https://HOST:PORT").format(
                url=url
            )
        )
    return url.rstrip("/")


def _tls(settings: Settings) -> Tls | None:
    if bool(settings.api_certificate) != bool(settings.api_key):
        raise ConfigError(_("give both --api-certificate and --api-key, or neither ('' for the fleet's own)"))
    if not settings.api_certificate:
        return None
    return Tls(Path(settings.api_certificate), Path(settings.api_key))


def _oidc(settings: Settings) -> Oidc | None:
    if bool(settings.oidc_issuer) != bool(settings.oidc_client_id):
        raise ConfigError(_("give both --oidc-issuer and --oidc-client-id, or neither ('' for none)"))
    if not settings.oidc_issuer:
        return None
    parts = urlsplit(settings.oidc_issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(
            _("{url!r} is no OIDC issuer; use https://HOST, exactly as the issuer calls itself").format(
                url=settings.oidc_issuer
            )
        )
    return Oidc(settings.oidc_issuer, settings.oidc_client_id)


def _budget(per_hour: float) -> float:
    if not 0.0 < per_hour < math.inf:
        raise ConfigError(_("{number} is no number of questions an hour").format(number=per_hour))
    return per_hour


def _rate(limit: float) -> float:
    if not 0.0 < limit < math.inf:
        raise ConfigError(_("{number} is no limit of what a device may send").format(number=limit))
    return limit


def _days(days: int) -> int:
    if not 1 <= days <= _MOST_DEVICE_DAYS:
        raise ConfigError(
            _("certificates cannot last {days} days; use 1 to {most}").format(
                days=days, most=_MOST_DEVICE_DAYS
            )
        )
    return days


def _grace(days: int) -> int:
    if not 0 <= days <= _MOST_GRACE_DAYS:
        raise ConfigError(
            _("certificates cannot be renewed {days} days late; use 0 to {most}").format(
                days=days, most=_MOST_GRACE_DAYS
            )
        )
    return days


def _host(host: str) -> str:
    if not _HOST.match(host):
        raise ConfigError(_("{host!r} is no host; use a name or an IP address").format(host=host[:80]))
    return host


def _port(port: int) -> int:
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(_("{port} is no port; use 1 to 65535, or 0 for a free one").format(port=port))
    return port
