"""``fleet-server serve``: makes what a server needs, then runs its processes until asked to end.

Order matters: nothing is started before everything that a person could have got wrong was looked
at, and ``endpoints.json`` appears only when all of it answers.
"""

import http.client
import os
import signal
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.texts import _
from fleet_server.access.tokens import provide_token
from fleet_server.audit.checkpoint_files import provide_audit_key
from fleet_server.audit.notary import CheckpointKeeper
from fleet_server.authority import health as authority_health
from fleet_server.authority.authority import API_NAME, UPDATES_NAME, open_authority
from fleet_server.authority.providing import provide_broker, provide_roots, provide_server, provide_service
from fleet_server.clock import now, wall_ms
from fleet_server.config import (
    SETTINGS_FILE,
    ServerConfig,
    Settings,
    resolve,
    save_settings,
    without_password,
)
from fleet_server.database.engine import open_engine
from fleet_server.database.schema import upgrade
from fleet_server.database.service import keep_codes
from fleet_server.devices.certificates import all_revoked
from fleet_server.errors import ConfigError, StoreError
from fleet_server.files import make_folder, write_durably
from fleet_server.guard import GUARD
from fleet_server.health import has_started
from fleet_server.identity.device_tokens import provide_token_key
from fleet_server.link import mosquitto
from fleet_server.lock import locked
from fleet_server.supervisor import Program, Stopped, Supervisor
from fleet_server.updates.office import provide_keys

BROKER_READY_S: Final = 20.0
"""A broker that loads a large store takes seconds."""

SERVICES_READY_S: Final = 60.0
"""Starting Python three times at once on a small board takes its time."""

_ANSWER_S: Final = 2.0


class Endpoints(msgspec.Struct, frozen=True):
    """Where the running server is reached, for whoever may read its data folder.

    ``api_ca`` is the authority that the API's certificate is of, empty where one was given.
    """

    api_url: str
    mqtt_host: str
    mqtt_port: int
    ca: str
    api_ca: str
    token_file: str
    device_url: str


def serve(data: Path, settings: Settings) -> None:
    """Run the server on the folder ``data``, which is there, until SIGTERM or SIGINT.

    Raises:
        ServerError: it cannot start; the message says what to do.
    """
    # Whatever a child writes, the database too, is for the owner alone.
    os.umask(0o077)
    with locked(data):
        config = _run(data, settings)
        # Whatever was changed until the end is signed, once nobody writes any more.
        _sign_record(config)


def _run(data: Path, settings: Settings) -> ServerConfig:
    """Run the server's processes until somebody asks to end; the configuration that they ran with."""
    with Supervisor() as supervisor:
        asked = resolve(data, settings)
        asked.endpoints.unlink(missing_ok=True)
        mqtt_port = _broker_port(asked) if asked.embedded else settings.mqtt_port
        with _listen_for_people(asked) as people, _listen_for_devices(asked) as devices:
            chosen = msgspec.structs.replace(
                settings,
                mqtt_port=mqtt_port,
                api_port=people.getsockname()[1],
                device_port=devices.getsockname()[1],
            )
            config = resolve(data, chosen)
            _provide(config)
            save_settings(data, chosen)
            try:
                _start(supervisor, config, people, devices)
                _announce(config)
                supervisor.run()
            except Stopped:
                pass
            finally:
                config.endpoints.unlink(missing_ok=True)
    return config


def _sign_record(config: ServerConfig) -> None:
    """Sign how far the record of changes goes."""
    engine = open_engine(config.database_url)
    try:
        CheckpointKeeper(engine, config).settle()
    finally:
        engine.dispose()


def _broker_port(asked: ServerConfig) -> int:
    """The embedded broker's port: the one asked for if it can be had, a free one for 0."""
    mosquitto.find_mosquitto()
    address = mosquitto.listening_address(asked.mqtt_host)
    return mosquitto.free_port(asked.mqtt_port, address, "--mqtt-port")


def _provide(config: ServerConfig) -> None:
    """Make what is missing: tables, authority, certificates, token, folders."""
    engine = _open_database(config.database_url)
    try:
        _provide_certificates(engine, config, is_first=not (config.data / SETTINGS_FILE).exists())
        provide_token(engine, config.token, config.tenant)
    finally:
        engine.dispose()
    make_folder(config.logs)
    provide_token_key(config.token_key)
    provide_keys(config)
    provide_audit_key(config)
    _sign_record(config)


def _provide_certificates(engine: Engine, config: ServerConfig, *, is_first: bool) -> None:
    authority = open_authority(config.authority, may_make=is_first)
    provide_roots(authority, config.ca)
    for name in mosquitto.SERVICES:
        provide_service(authority, config.service(name), name)
    provide_broker(authority, config.broker, config.mqtt_host, all_revoked(engine, wall_ms()))
    provide_server(authority, config.device_certificate, UPDATES_NAME, config.device_host)
    provide_server(authority, config.own_api_certificate, API_NAME, config.api_name)
    mosquitto.write_configuration(config)
    keep_codes(engine, authority_health.CODES, authority_health.judge(authority, now()), wall_ms())


def _start(
    supervisor: Supervisor, config: ServerConfig, people: socket.socket, devices: socket.socket
) -> None:
    if config.embedded:
        supervisor.start(_broker_program(config))
        supervisor.wait_until(partial(mosquitto.accepts, config), BROKER_READY_S, _("the broker"))
    began_ms = wall_ms()
    supervisor.start(_service_program(config, "ingest"))
    supervisor.start(_service_program(config, "watch"))
    supervisor.start(_service_program(config, "guard"))
    supervisor.start(_service_program(config, "api", people.fileno()))
    supervisor.start(_service_program(config, "device", devices.fileno()))
    supervisor.start(_service_program(config, "rollouts"))
    supervisor.start(_service_program(config, "escalation"))
    engine = open_engine(config.database_url)
    try:
        # With an outside broker that is away, ingest waits for it; the watch says so.
        speaking = mosquitto.SERVICES if config.embedded else (mosquitto.WATCH, mosquitto.ROLLOUTS)
        for name in (*speaking, GUARD):
            supervisor.wait_until(partial(has_started, engine, name, began_ms), SERVICES_READY_S, name)
    finally:
        engine.dispose()
    supervisor.wait_until(partial(_answers, config), SERVICES_READY_S, _("the API"))
    supervisor.wait_until(partial(_gives_updates, config), SERVICES_READY_S, _("the updates"))


def _broker_program(config: ServerConfig) -> Program:
    return Program(
        name="mosquitto",
        command=(mosquitto.find_mosquitto(), "-c", str(config.broker / "mosquitto.conf")),
        log=config.broker / "mosquitto.log",
        # It saves its queues when asked politely, and always obeys.
        orphaned=signal.SIGTERM,
    )


def _service_program(config: ServerConfig, name: str, *descriptors: int) -> Program:
    inherited = (part for number in descriptors for part in ("--descriptor", str(number)))
    command = (sys.executable, "-m", "fleet_server", name, "--data", str(config.data), *inherited)
    return Program(name, command, config.logs / f"{name}.log", descriptors)


def _announce(config: ServerConfig) -> None:
    url = _api_url(config)
    endpoints = Endpoints(
        api_url=url,
        mqtt_host=config.mqtt_host,
        mqtt_port=config.mqtt_port,
        ca=str(config.ca),
        api_ca="" if config.api_tls else str(config.ca),
        token_file=str(config.token),
        device_url=config.device_url,
    )
    write_durably(config.endpoints, msgspec.json.format(msgspec.json.encode(endpoints)) + b"\n")
    _say(
        _("Ready. API {url}, broker {host}:{port}, updates {updates}, data {data}").format(
            url=url,
            host=config.mqtt_host,
            port=config.mqtt_port,
            updates=config.device_url,
            data=config.data,
        )
    )


def _api_url(config: ServerConfig) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.api_host, config.api_host)  # noqa: S104
    return f"https://{host}:{config.api_port}"


def _answers(config: ServerConfig) -> bool:
    """Whether the API answers, were it only to refuse a stranger."""
    address = urlsplit(_api_url(config))
    context = ssl.create_default_context(cafile=str(config.ca))
    if config.api_tls is not None:
        # It was given, with whatever name and authority: that somebody answers is all that counts here.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    status = http.HTTPStatus.UNAUTHORIZED
    return _says(context, address.hostname or "", config.api_port, "/v1/health", status)


def _gives_updates(config: ServerConfig) -> bool:
    """Whether the device listener answers behind its certificate, were it only that there is nothing."""
    context = ssl.create_default_context(cafile=str(config.ca))
    return _says(context, config.device_host, config.device_port, "/", http.HTTPStatus.NOT_FOUND)


def _says(context: ssl.SSLContext, host: str, port: int, path: str, status: http.HTTPStatus) -> bool:
    """Whether ``path`` is answered with ``status``."""
    connection = http.client.HTTPSConnection(host, port, timeout=_ANSWER_S, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except OSError:
        return False
    finally:
        connection.close()


def _listen_for_people(asked: ServerConfig) -> socket.socket:
    return _listen(asked.api_host, asked.api_port, _("the API"), "--api-port")


def _listen_for_devices(asked: ServerConfig) -> socket.socket:
    """Where the broker listens too: on this machine alone, or on all its addresses."""
    host = mosquitto.listening_address(asked.device_host) or ""
    return _listen(host, asked.device_port, _("the device listener"), "--device-port")


def _listen(host: str, port: int, who: str, option: str) -> socket.socket:
    """A socket that is kept by this process, so that a restart of its service refuses nobody."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            _("{who} cannot listen on {host}:{port} ({reason}); stop what does, or give {option}").format(
                who=who,
                host=host,
                port=port,
                reason=os.strerror(error.errno) if error.errno else error,
                option=option,
            )
        ) from error


def _open_database(url: str) -> Engine:
    """The database with its tables up to date."""
    engine = None
    try:
        engine = open_engine(url)
        upgrade(engine)
    except ModuleNotFoundError as error:
        raise StoreError(
            _("{module} is not installed; run: pip install 'argan[postgres]'").format(module=error.name)
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        if engine is not None:
            engine.dispose()
        raise StoreError(
            _(
                "the database {url} cannot be used ({reason}); check that it runs and that the URL is right"
            ).format(
                url=without_password(url), reason=str(getattr(error, "orig", None) or error).strip()[:300]
            )
        ) from error
    return engine


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - said to whoever started it
