"""Fitting the two small networks in float, on the CPU, from a fixed seed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]
Loss = Callable[[Tensor, Tensor], Tensor]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is fitted."""

    epochs: int
    batch: int
    rate: float
    """Largest learning rate of its one cycle."""
    noise: float
    """Spread of what is added to the inputs."""
    seed: int = 1


def fit(
    build: Callable[[], Network],
    loss: Loss,
    inputs: Floats,
    targets: NDArray[np.generic],
    recipe: Recipe,
) -> Network:
    """A module from ``build`` that maps ``inputs``, with the recipe's noise added, to ``targets``."""
    torch.manual_seed(recipe.seed)
    module, given, wanted = build(), torch.from_numpy(inputs), torch.from_numpy(targets)
    steps = recipe.epochs * -(-len(given) // recipe.batch)
    optimizer = torch.optim.AdamW(module.parameters(), recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps)
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in torch.randperm(len(given)).split(recipe.batch):
            noisy = given[rows] + recipe.noise * torch.randn_like(given[rows])
            value = loss(module(noisy), wanted[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item() * len(rows)
        print(f"epoch {epoch + 1}/{recipe.epochs}: loss {total / len(given):.4f}", flush=True)
    module.eval()
    return module


def predict(module: nn.Module, inputs: Floats) -> Floats:
    """What ``module`` answers for each row of ``inputs``."""
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(inputs)).numpy())
