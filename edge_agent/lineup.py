"""Which model and which policy run under each name: what was installed before what came fitted.

For each there are several choices, the best first: what is installed, what was installed before it,
what the configuration names. A medium that lost the first does not leave the site without any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import Model as ModelConfig
from edge_agent.errors import InferenceError
from edge_agent.inference.bundle import read_bundle
from edge_agent.inference.session import Isolation
from edge_agent.updates.records import Installed, Slot
from edge_agent.updates.store import Store
from fleet_protocol.manifest import Runtime
from fleet_protocol.targets import Kind


@dataclass(frozen=True, slots=True)
class Choice:
    """A model's folder, or a policy's file; ``sha256`` is the artifact's, empty for what came fitted."""

    path: Path
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Fitting:
    """One place in the pipeline: the choices for its model and for the policy that reads its answers."""

    name: str
    models: tuple[Choice, ...]
    policies: tuple[Choice, ...]
    runtime: Runtime | None = None
    isolation: Isolation = "worker"


def line_up(configs: Sequence[ModelConfig], installed: Installed, store: Store) -> list[Fitting]:
    """A fitting for every model that is configured or installed."""
    fittings = [_configured(config, installed, store) for config in configs]
    known = {fitting.name for fitting in fittings}
    fittings += [
        Fitting(slot.name, _installed(slot, store), _policies(slot.name, installed, store))
        for slot in installed.slots
        if slot.kind is Kind.MODEL and slot.name not in known and not slot.in_shadow
    ]
    return fittings


def _configured(config: ModelConfig, installed: Installed, store: Store) -> Fitting:
    name = _name_in(config.folder)
    return Fitting(
        name,
        (*_installed(installed.slot((Kind.MODEL, name)), store), Choice(config.folder)),
        (
            *_policies(name, installed, store),
            *([Choice(config.policy)] if config.policy else []),
        ),
        config.runtime,
        config.isolation,
    )


def _name_in(folder: Path) -> str:
    """The name of the model that came fitted; its folder's where it cannot be read, as opening will say."""
    try:
        return read_bundle(folder).manifest.name
    except InferenceError:
        return folder.name


def _policies(model: str, installed: Installed, store: Store) -> tuple[Choice, ...]:
    """The installed policies for ``model``, the one that was switched last first."""
    slots = [
        slot
        for slot in installed.slots
        if slot.kind is Kind.POLICY and slot.current and slot.current.description.requires.model == model
    ]
    return tuple(choice for slot in reversed(slots) for choice in _installed(slot, store))


def _installed(slot: Slot, store: Store) -> tuple[Choice, ...]:
    return tuple(_choices(slot, store))


def _choices(slot: Slot, store: Store) -> Iterator[Choice]:
    for target in (slot.current, slot.previous):
        if target is not None:
            place = store.place if slot.kind is Kind.MODEL else store.policy
            yield Choice(place(target.sha256), target.sha256)
