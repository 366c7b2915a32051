"""What would keep the agent from running: configuration, identity, models. Starts nothing that stays.

Needs no network and asks nothing of the board; ``service/doctor`` does, and asks all of this too.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.allowance import allowance
from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config, Model, Replay, load
from edge_agent.errors import AgentError, ConfigError, IdentityError, InferenceError
from edge_agent.identity.identity import load_identity
from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Manifest, Runtime
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _


def problems(file: Path) -> list[AgentError]:
    """Everything that is wrong with the agent of the configuration in ``file``."""
    try:
        config = load(file)
    except ConfigError as error:
        return [error]
    allowed = allowance(config).profile
    return [
        *_identity_problems(config, Clock(boot_id(), may_stop=allowed.rtc.may_stop)),
        *sensor_problems(config),
        *(problem for model in config.models for problem in model_problems(model, allowed.runtimes.allowed)),
        *_update_problems(config),
    ]


def _identity_problems(config: Config, clock: Clock) -> Iterator[AgentError]:
    try:
        identity = load_identity(config.device, config.broker)
    except IdentityError as error:
        yield error
        return
    problem = identity.date_problem(clock.wall_ms())
    if problem and clock.state() is ClockState.TRUSTED:
        yield IdentityError(f"{config.broker.certificate}: {problem}")


def sensor_problems(config: Config) -> Iterator[AgentError]:
    """What is wrong with the sensors that can be seen without asking them."""
    for sensor in config.sensors:
        if isinstance(sensor, Replay) and not sensor.path.is_file():
            yield ConfigError(
                _("{sensor}: no file {path}; correct 'path'").format(sensor=sensor.name, path=sensor.path)
            )


def model_problems(model: Model, preferred: Sequence[Runtime]) -> Iterator[AgentError]:
    """What is wrong with ``model`` and its policy, found out by opening it."""
    from edge_agent.inference.session import open_session

    try:
        session = open_session(
            model.folder, isolation=model.isolation, runtime=model.runtime, preferred=preferred
        )
    except InferenceError as error:
        yield error
        return
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
