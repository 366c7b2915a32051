"""The agent's configuration: one TOML file, read once into frozen, typed objects.

Paths in the file are relative to the file. Every limit has a default with its unit in its name;
nothing is read from the environment.
"""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from edge_agent.errors import ConfigError
from fleet_protocol.delivery import Windows
from fleet_protocol.manifest import Identifier, Runtime
from fleet_protocol.messages import MetricKind, Name
from fleet_protocol.texts import _

MAX_METRICS: Final = 500
"""Metrics of one agent; a gap record names them all and must stay within one message."""

REGISTER_WORDS: Final = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2}
"""How many Modbus registers a value of each type takes."""

UPDATES_PATH: Final = "/v1/updates"
"""What a server has behind its address where updates are."""

Unit = Annotated[str, msgspec.Meta(max_length=16, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
DeviceId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]
Url = Annotated[str, msgspec.Meta(pattern=r"^https://[^\s/?#@]+(/[^\s?#]*)?\Z", max_length=500)]
KindName = Literal["gauge", "counter", "state"]


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the broker is, and the three files that the two sides prove themselves with.

    ``keepalive_s``: a dead link is noticed after 1.5 times this. ``reconnect_cap_s``: attempts to
    reconnect are spread over at most this long.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port = 8883
    ca: Path
    certificate: Path
    key: Path
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    reconnect_cap_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600.0)] = 60.0


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the server's HTTPS listener for devices is: certificates are renewed there."""

    url: Url


class Spool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much unsent data is kept on disk, and how often what was read is committed to it.

    What is not given is the firmware profile's; what is given is obeyed, also beyond the profile.
    """

    max_bytes: Annotated[int, msgspec.Meta(ge=2**20, le=2**40)] | None = None
    flush_interval_s: Annotated[float, msgspec.Meta(ge=0.01, le=3600.0)] | None = None


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value in a Modbus server: ``reported = raw * scale + offset``.

    ``address`` counts from zero, as it travels on the wire. ``word_order`` says which of two
    registers comes first, the high one (``big``) or the low one (``little``).
    """

    metric: Identifier
    unit: Unit = ""
    kind: KindName = "gauge"
    address: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    table: Literal["holding", "input"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32"] = "float32"
    scale: float = 1.0
    offset: float = 0.0
    word_order: Literal["big", "little"] = "big"


class Modbus(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="modbus"
):
    """A Modbus TCP server, polled. A gauge that does not change for ``stuck_after_s`` is called stuck."""

    name: Name
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port = 502
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    interval_s: Seconds = 1.0
    timeout_s: Seconds = 1.0
    stuck_after_s: Seconds | None = None
    registers: Annotated[tuple[Register, ...], msgspec.Meta(min_length=1, max_length=256)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what it measures."""
        return tuple(register.metric for register in self.registers)


class Replay(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="replay"
):
    """A recording (``.csv`` or ``.parquet``), replayed row by row.

    Either every ``interval_s`` seconds, or as recorded by ``time_column`` (ISO 8601 or seconds),
    divided by the configuration's ``time_factor``.
    """

    name: Name
    path: Path
    columns: Annotated[dict[Identifier, str], msgspec.Meta(min_length=1, max_length=256)]
    units: dict[Identifier, Unit] = {}
    interval_s: Seconds | None = None
    time_column: str | None = None
    repeat: bool = False
    stuck_after_s: Seconds | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what it replays."""
        return tuple(self.columns)


SensorConfig = Modbus | Replay


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's folder, and the policy that reads its answers.

    ``runtime``: this one and no other, also where the firmware profile does not have it.
    """

    folder: Path
    policy: Path | None = None
    runtime: Runtime | None = None
    isolation: Literal["worker", "none"] = "worker"


class Updates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where signed updates come from, and how a new version has to prove itself.

    ``image_root`` and ``director_root`` are the root metadata that this device was given when it was
    enrolled. It looks every ``poll_interval_s`` and when it is hinted at; after a failure at most
    ``retry_cap_s`` later. A new version is on probation for at least ``probation_s`` seconds and
    ``probation_windows`` answers.
    """

    url: Url
    image_root: Path
    director_root: Path
    poll_interval_s: Annotated[float, msgspec.Meta(ge=1.0, le=2_592_000.0)] = 3600.0
    retry_cap_s: Seconds = 900.0
    probation_s: Annotated[float, msgspec.Meta(ge=0.0, le=2_592_000.0)] = 300.0
    probation_windows: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 8


class Os(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How images of the operating system come in, on a board whose profile names an updater for them.

    ``restart``: with ``ask`` the agent never restarts the board, somebody does; with ``window`` it runs
    ``restart_command`` in one of ``windows``, hours as the board's clock shows them, and at once where a new
    system has to be left again. An installation may take ``install_limit_s``. ``copies``, for SWUpdate:
    by the root device that runs, as ``swupdate -g`` says, the software selection that fills the other.
    """

    restart: Literal["ask", "window"] = "ask"
    windows: Windows = ()
    restart_command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("systemctl", "reboot")
    install_limit_s: Seconds = 3600.0
    copies: dict[str, Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+,[A-Za-z0-9_-]+\Z")]] = {}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration.

    ``profile`` names the board (see ``firmware_profiles``) and with it what the agent may use.
    ``time_factor`` is for simulations alone: how much faster than real the sensors' world runs.
    """

    device: DeviceId
    data: Path
    broker: Broker
    profile: Name = "generic"
    time_factor: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 1.0
    spool: Spool = Spool()
    sensors: tuple[SensorConfig, ...] = ()
    models: tuple[Model, ...] = ()
    updates: Updates | None = None
    server: Server | None = None
    os: Os = Os()

    @property
    def server_url(self) -> str | None:
        """Where the device proves itself over HTTPS: as [server] says, or else where updates come from."""
        if self.server is not None:
            return self.server.url.rstrip("/")
        if self.updates is not None and self.updates.url.rstrip("/").endswith(UPDATES_PATH):
            return self.updates.url.rstrip("/").removesuffix(UPDATES_PATH)
        return None


METRIC_KINDS: Final[dict[KindName, MetricKind]] = {
    "gauge": MetricKind.GAUGE,
    "counter": MetricKind.COUNTER,
    "state": MetricKind.STATE,
}
"""A metric's kind as people write it."""


def load(file: Path) -> Config:
    """The configuration in ``file``.

    Raises:
        ConfigError: naming the file, the key and what to do.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            _("{file}: {reason}; give the agent's configuration with --config").format(
                file=file, reason=error.strerror
            )
        ) from None
    except ValueError as error:
        raise ConfigError(
            _("{file}: no TOML: {reason}; correct this line").format(file=file, reason=error)
        ) from None
    return _convert(file, content)


def _convert(file: Path, content: dict[str, object]) -> Config:
    folder = file.absolute().parent

    def as_path(kind: type, value: object) -> Path:
        if kind is Path and isinstance(value, str) and value:
            return folder / value
        raise ValueError(_("Expected a path"))

    try:
        config = msgspec.convert(content, Config, dec_hook=as_path)
    except msgspec.ValidationError as error:
        raise ConfigError(
            _("{file}: {reason}; correct this key").format(file=file, reason=_readable(str(error)))
        ) from None
    for problem in _contradictions(config):
        raise ConfigError(f"{file}: {problem}")
    return config


def _readable(reason: str) -> str:
    """Msgspec's ``… - at `$.sensors[0].host``` in the words of the file."""
    what, separator, where = reason.partition(" - at `$")
    return f"[{where.rstrip('`').lstrip('.')}] {what}" if separator else what


def _contradictions(config: Config) -> list[str]:
    names = [sensor.name for sensor in config.sensors]
    metrics = [metric for sensor in config.sensors for metric in sensor.metrics]
    problems = [
        _("two sensors are named {name!r}; give each its own name").format(name=name)
        for name in _repeated(names)
    ]
    problems += [
        _("metric {metric!r} is measured twice; give each its own name").format(metric=metric)
        for metric in _repeated(metrics)
    ]
    if len(metrics) > MAX_METRICS:
        problems.append(
            _("{count} metrics; one agent reports at most {limit}").format(
                count=len(metrics), limit=MAX_METRICS
            )
        )
    if config.os.restart == "window" and not config.os.windows:
        problems.append(_('[os] restart = "window" needs \'windows\', as in ["02:00-04:00"]'))
    for sensor in config.sensors:
        problems += _modbus_problems(sensor) if isinstance(sensor, Modbus) else _replay_problems(sensor)
    return problems


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _modbus_problems(sensor: Modbus) -> list[str]:
    problems = []
    for register in sensor.registers:
        if register.address + REGISTER_WORDS[register.type] > 65536:  # noqa: PLR2004 - Modbus's own limit
            problems.append(
                _("{sensor}: metric {metric!r} ends beyond register 65535; correct 'address'").format(
                    sensor=sensor.name, metric=register.metric
                )
            )
        if not (math.isfinite(register.scale) and math.isfinite(register.offset)):
            problems.append(
                _("{sensor}: metric {metric!r}: 'scale' and 'offset' must be finite").format(
                    sensor=sensor.name, metric=register.metric
                )
            )
    return problems


def _replay_problems(sensor: Replay) -> list[str]:
    problems = []
    if (sensor.interval_s is None) == (sensor.time_column is None):
        problems.append(_("{sensor}: give either 'interval_s' or 'time_column'").format(sensor=sensor.name))
    if sensor.path.suffix not in {".csv", ".parquet"}:
        problems.append(
            _("{sensor}: {path} must end in .csv or .parquet").format(
                sensor=sensor.name, path=sensor.path.name
            )
        )
    problems += [
        _("{sensor}: 'units' names {metric!r}, which 'columns' does not").format(
            sensor=sensor.name, metric=metric
        )
        for metric in sensor.units
        if metric not in sensor.columns
    ]
    return problems
