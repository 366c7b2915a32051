"""The central network: from the raw last windows of all gateways to the zone of a leak.

Everything is inside the graph: what is missing is left out of the means, the last day is set against
the week before, then each gateway is encoded by shared layers, looks at the others, and says how
much speaks for a leak in its own district. What each gateway says is computed with the same weights,
so that a district whose junctions never leaked in training still has a voice.
"""

from typing import Final

import torch
from torch import Tensor, nn

from use_cases.water_network.network import STEPS_A_DAY
from use_cases.water_network.scenarios import HISTORY_DAYS

_FLOOR: Final = 0.1
"""Least spread, as in the features of the edge model: m and L/s."""
_LIMIT: Final = 8.0
"""Spreads; what is further out is far out."""
_WIDTH: Final = 64
_HEADS: Final = 4


class ZoneNetwork(nn.Module):  # type: ignore[misc]  # torch is untyped where this is checked
    """Readings and mask, (batch, gateways, metrics, steps), to probabilities, (batch, gateways + 1)."""

    def __init__(self, gateways: int, metrics: int) -> None:
        """Make layers for so many gateways and metrics."""
        super().__init__()
        given = metrics * (3 * STEPS_A_DAY + 1)
        self.encode = nn.Sequential(nn.Linear(given, 128), nn.ReLU(), nn.Linear(128, _WIDTH), nn.ReLU())
        self.look = nn.ModuleList(_Look(gateways) for _ in range(2))
        self.district = nn.Sequential(nn.Linear(2 * _WIDTH, 64), nn.ReLU(), nn.Linear(64, 1))
        self.none = nn.Sequential(nn.Linear(2 * _WIDTH, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, readings: Tensor, mask: Tensor) -> Tensor:
        """Probabilities of a leak in each district, in the order of the gateways, and of none at all."""
        return torch.softmax(self.logits(features(readings, mask)), dim=-1)

    def logits(self, given: Tensor) -> Tensor:
        """The same before the softmax, from :func:`features`, which have nothing to be fitted."""
        own = self.encode(given)
        seen = own
        for layer in self.look:
            seen = layer(seen)
        districts = self.district(torch.cat([own, seen], dim=-1)).squeeze(-1)
        whole = torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=-1)
        return torch.cat([districts, self.none(whole)], dim=-1)


class _Look(nn.Module):  # type: ignore[misc]
    """Attention of each gateway to the others; a bias for every pair lets it learn who lies near whom."""

    def __init__(self, gateways: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_WIDTH)
        self.ask = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.near = nn.Parameter(torch.zeros(_HEADS, gateways, gateways))
        self.mix = nn.Linear(_WIDTH, _WIDTH)
        self.after = nn.Sequential(
            nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH), nn.ReLU(), nn.Linear(2 * _WIDTH, _WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        gateways = tokens.shape[1]
        heads = self.ask(self.norm(tokens)).reshape(-1, gateways, 3, _HEADS, _WIDTH // _HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        weights = query @ key.transpose(-1, -2) * (_WIDTH // _HEADS) ** -0.5 + self.near
        found = torch.softmax(weights, dim=-1) @ value
        tokens = tokens + self.mix(found.transpose(1, 2).reshape(-1, gateways, _WIDTH))
        return tokens + self.after(tokens)


def features(readings: Tensor, mask: Tensor) -> Tensor:
    """Per gateway: last day against the week before, the usual day, what was measured, the log spread."""
    present = (mask > 0.5).to(readings.dtype)
    days = (-1, HISTORY_DAYS, STEPS_A_DAY)
    # What is not measured may hold anything, a NaN too; a product would keep it.
    values = torch.where(mask > 0.5, readings, torch.zeros_like(readings)).unflatten(-1, days[1:])
    known = present.unflatten(-1, days[1:])
    past, past_known = values[..., :-1, :], known[..., :-1, :]
    count = past_known.sum(dim=-2)
    usual = past.sum(dim=-2) / count.clamp(min=1.0)
    around = (past - usual.unsqueeze(-2)) * past_known
    spread = _root_mean(around.square(), past_known, (-2, -1)).clamp(min=_FLOOR)
    compared = known[..., -1, :] * (count > 0.5).to(readings.dtype)
    last = ((values[..., -1, :] - usual) * compared / spread).clamp(-_LIMIT, _LIMIT)
    parts = [last, _profile(usual, (count > 0.5).to(readings.dtype)), compared, spread.log()]
    return torch.cat(parts, dim=-1).flatten(2)


def _profile(usual: Tensor, known: Tensor) -> Tensor:
    level = (usual * known).sum(dim=-1, keepdim=True) / known.sum(dim=-1, keepdim=True).clamp(min=1.0)
    course = (usual - level) * known
    return course / _root_mean(course.square(), known, (-1,)).clamp(min=_FLOOR)


def _root_mean(squares: Tensor, known: Tensor, over: tuple[int, ...]) -> Tensor:
    total = squares.sum(dim=over).unsqueeze(-1)
    return (total / known.sum(dim=over).unsqueeze(-1).clamp(min=1.0) + 1e-12).sqrt()
