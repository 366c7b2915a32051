"""What the executor needs of the models that run, and of those that run in shadow of them."""

from collections.abc import Set as AbstractSet
from typing import Protocol

from edge_agent.lineup import Choice
from edge_agent.pipeline.vitals import Vitals
from fleet_protocol.targets import Kind


class Beside(Protocol):
    """What the executor needs of the models that run in shadow."""

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        """Open a model to be run in shadow of ``name``. Raises InferenceError, UpdateUnfit."""

    async def bring(self, name: str, choice: Choice | None) -> None:
        """Make that run in shadow of ``name``, or nothing. Raises InferenceError where it does not."""

    async def keep(self, digests: AbstractSet[str]) -> None:
        """End what runs in shadow and is none of these artifacts."""

    def vitals(self, name: str) -> Vitals:
        """How what runs in shadow of ``name`` has done."""


class Runner(Protocol):
    """What the executor needs of the models that run."""

    @property
    def shadows(self) -> Beside:
        """The models that run in shadow."""

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        """Open a model beside what runs, on its golden inputs. Raises InferenceError, UpdateUnfit."""

    async def compile(self, model: str, choice: Choice) -> None:
        """Compile a policy for the model that runs. Raises UpdateUnfit."""

    async def bring(self, name: str, kind: Kind) -> None:
        """Make what is installed under a model's name run. Raises InferenceError where that kind does not."""

    def vitals(self, name: str) -> Vitals:
        """How what runs under a model's name has done since it took its place."""

    def usual(self, name: str) -> Vitals:
        """What is usual of it at present: what the next version is held against."""

    def forget(self) -> None:
        """Close what was examined and not brought."""
