"""What would keep the agent from running: configuration, identity, models. Starts nothing that stays."""

from collections.abc import Iterator
from pathlib import Path

from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config, Replay, load
from edge_agent.errors import AgentError, ConfigError, IdentityError, InferenceError
from edge_agent.link.identity import load_identity
from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Manifest
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _


def problems(file: Path) -> list[AgentError]:
    """Everything that is wrong with the agent of the configuration in ``file``."""
    try:
        config = load(file)
    except ConfigError as error:
        return [error]
    return [
        *_identity_problems(config),
        *_sensor_problems(config),
        *_model_problems(config),
        *_update_problems(config),
    ]


def _identity_problems(config: Config) -> Iterator[AgentError]:
    clock = Clock(boot_id())
    try:
        identity = load_identity(config.device, config.broker)
    except IdentityError as error:
        yield error
        return
    problem = identity.date_problem(clock.wall_ms())
    if problem and clock.state() is ClockState.TRUSTED:
        yield IdentityError(f"{config.broker.certificate}: {problem}")


def _sensor_problems(config: Config) -> Iterator[AgentError]:
    for sensor in config.sensors:
        if isinstance(sensor, Replay) and not sensor.path.is_file():
            yield ConfigError(
                _("{sensor}: no file {path}; correct 'path'").format(sensor=sensor.name, path=sensor.path)
            )


def _model_problems(config: Config) -> Iterator[AgentError]:
    for model in config.models:
        from edge_agent.inference.session import open_session

        try:
            session = open_session(model.folder, isolation=model.isolation, runtime=model.runtime)
        except InferenceError as error:
            yield error
            continue
        session.close()
        if model.policy is not None:
            yield from _policy_problems(model.policy, session.manifest)


def _update_problems(config: Config) -> Iterator[AgentError]:
    settings = config.updates
    for root in (settings.image_root, settings.director_root) if settings else ():
        if not root.is_file():
            yield ConfigError(
                _("[updates]: no file {root}; fetch it with 'fleet key roots --out .'").format(root=root)
            )


def _policy_problems(file: Path, manifest: Manifest) -> Iterator[AgentError]:
    from fleet_protocol.policy import CompiledPolicy, parse

    try:
        CompiledPolicy(parse(file.read_bytes()), manifest)
    except (PolicyError, OSError) as error:
        yield ConfigError(str(error))
