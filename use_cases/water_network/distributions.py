"""How far scores move between versions: ``python -m use_cases.water_network.distributions``.

Prints a table of what a probation would see: the last 64 windows of the first leak model against the
next 64 of itself, of the retrained one, of one with a wrong manifest, and of one that fell silent.
Everything is simulated from seeds and computed with the committed models.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.pipeline.distribution import LEAST, MOVED, distance, histogram
from fleet_protocol.manifest import Runtime
from use_cases.water_network import faulty_models, models_folder
from use_cases.water_network.detectors import Series, model_score
from use_cases.water_network.markdown import table
from use_cases.water_network.runtimes import load_manifest, open_model
from use_cases.water_network.scenarios import Case, Split, frames, leak_cases, quiet_cases
from use_cases.water_network.sensors import Frame
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.windows import WINDOW, inputs

_CASES: Final = 4
Scores = NDArray[np.float32]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as made:
        faulty_models.make_worse(Path(made) / "worse")
        folders = {
            "itself": models_folder() / "pressure_leak",
            "retrained": models_folder() / "pressure_leak_2",
            "wrong features": Path(made) / "worse",
        }
        scorers = {name: _scorer(folder) for name, folder in folders.items()}
        rows = []
        for world, cases in (("quiet", quiet_cases(Split.HELD_OUT)), ("leaks", leak_cases(Split.HELD_OUT))):
            chosen = list(cases)[: _CASES if world == "quiet" else 4 * _CASES]
            rows += [[world, *row] for row in _rows(chosen, scorers)]
    heads = ["world", "against", "probations", "median", "99 %", f"above {MOVED}", "PSI > 0.25", "KS > 0.5"]
    print(table([heads, *rows]))


def _rows(cases: list[Case], scorers: dict[str, Callable[[Frame, int], Scores]]) -> Iterator[list[str]]:
    pairs: dict[str, list[tuple[Scores, Scores]]] = {name: [] for name in (*scorers, "silent")}
    for frame in frames(cases):
        for place in range(len(GATEWAYS)):
            known = {name: score(frame, place) for name, score in scorers.items()}
            known["silent"] = np.zeros_like(known["itself"])
            for name, scores in known.items():
                pairs[name] += _halves(known["itself"], scores)
    for name, found in pairs.items():
        counted = [(histogram(one.tolist()), histogram(other.tolist())) for one, other in found]
        moved = np.array([distance(one, other) for one, other in counted])
        psi = np.array([_psi(one, other) for one, other in counted])
        ks = np.array([_ks(one, other) for one, other in counted])
        yield [
            name, str(len(found)), f"{np.median(moved):.2f}", f"{np.quantile(moved, 0.99):.2f}",
            f"{(moved > MOVED).mean():.1%}", f"{(psi > 0.25).mean():.0%}", f"{(ks > 0.5).mean():.0%}",
        ]  # fmt: skip


def _halves(before: Scores, now: Scores) -> Iterator[tuple[Scores, Scores]]:
    """What one version said in some windows, and another in as many after them."""
    for middle in range(LEAST, len(before) - LEAST, LEAST):
        yield before[middle - LEAST : middle], now[middle : middle + LEAST]


def _scorer(folder: Path) -> Callable[[Frame, int], Scores]:
    score, features = model_score(open_model(folder, Runtime.LITERT)), load_manifest(folder).features

    def scores(frame: Frame, place: int) -> Scores:
        metrics = frame.metrics(place)
        ends = np.arange(WINDOW - 1, len(metrics["flow"]))
        rows = inputs(features, metrics, ends)
        return score(Series(metrics["pressure"], metrics["flow"], rows))

    return scores


def _psi(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Population stability index; half a window in every bin, so that an empty one is no infinity."""
    one, other = ((np.array(each) + 0.5) / (sum(each) + 0.5 * len(each)) for each in (first, second))
    return float(((one - other) * np.log(one / other)).sum())


def _ks(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Kolmogorov-Smirnov: the largest distance of the two cumulated shares."""
    one, other = (np.cumsum(each) / sum(each) for each in (first, second))
    return float(np.abs(one - other).max())


if __name__ == "__main__":
    main()
