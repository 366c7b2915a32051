"""What escalation brings: ``python -m use_cases.water_network.escalation_report`` writes ``ESCALATION.md``.

It reads the committed records, which :mod:`use_cases.water_network.escalation_records` makes, and
calibrates as ``fleet calibrate`` does; nothing is simulated, so it takes seconds.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.calibration import Calibration, Decision, calibrate
from fleet_protocol.escalation import calibrated
from use_cases.water_network.decisions import Purpose
from use_cases.water_network.escalation_records import EDGE_MODELS, Record, read, records_file
from use_cases.water_network.markdown import table as markdown
from use_cases.water_network.scenarios import SIZE_CLASSES

DELTA: Final = 0.1
ALPHAS: Final = (0.05, 0.1)
RAW: Final = (0.8, 0.9)
"""What one would pick by hand: the model's own confidence."""
_SECTION_MARK: Final = "<!-- section -->\n"
"""In the template: what follows is one edge model's part."""
_DRAWS: Final = 2000
_INTERVAL: Final = (2.5, 97.5)
_HEAD: Final = ("answered by", "error among kept", "offload share", "system accuracy", "decisions", "kept")

Flags = NDArray[np.bool_]
Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Material:
    """The records of one edge model."""

    model: str
    calibration: list[Record]
    report: list[Record]


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to decide which answers stay on the device."""

    name: str
    keeps: Callable[[Record], bool]


def main() -> None:
    """Write ``ESCALATION.md`` beside this file."""
    text = report()
    Path(__file__).with_name("ESCALATION.md").write_text(text, encoding="utf-8")
    print(text)


def report() -> str:
    """The report on the committed records."""
    template = Path(__file__).with_name("escalation_template.md").read_text(encoding="utf-8")
    whole, section = template.split(_SECTION_MARK)
    return whole.format(
        models="\n\n".join(_section(_material(model), section) for model in EDGE_MODELS),
        center=_center(_material(EDGE_MODELS[-1]).report),
    )


def learned(records: Sequence[Record], alpha: float) -> Calibration:
    """What ``fleet calibrate`` learns from ``records``."""
    decisions = [Decision(each.scenario, each.day, each.confidence, bool(each.correct)) for each in records]
    return calibrate(decisions, alpha, DELTA)


def calibrated_choice(result: Calibration) -> Choice:
    """To keep what the calibrated threshold keeps."""
    threshold = result.threshold
    name = f"calibrated, α = {result.alpha:.0%}"
    if threshold is None:
        return Choice(f"{name} (none found: everything is escalated)", lambda _record: False)
    return Choice(
        f"{name} (τ = {threshold}, T = {result.temperature})",
        lambda record: calibrated(record.confidence, result.temperature) >= threshold,
    )


def _material(model: str) -> Material:
    return Material(model, *(read(records_file(model, purpose)) for purpose in Purpose))


def _section(material: Material, template: str) -> str:
    results = [learned(material.calibration, alpha) for alpha in ALPHAS]
    best = next((each for each in results if each.threshold is not None), results[0])
    choices = [
        Choice("edge model only", lambda _record: True),
        Choice("central model only", lambda _record: False),
        *(Choice(f"raw softmax ≥ {limit}", _above(limit)) for limit in RAW),
        *(calibrated_choice(result) for result in results),
    ]
    rows = [list(_HEAD), *(_row(choice, material.report) for choice in choices)]
    return template.strip().format(
        model=material.model,
        table=markdown(rows),
        n_fit=results[0].n_fit,
        n_cal=results[0].n_cal,
        together=_together(material.report),
        alpha=best.alpha,
        kinds=_kinds(calibrated_choice(best), material.report),
    )


def _above(limit: float) -> Callable[[Record], bool]:
    return lambda record: record.confidence >= limit


def _row(choice: Choice, records: Sequence[Record]) -> list[str]:
    decisions, kept, wrong, right = _sums(choice, records).T
    picks = np.random.default_rng(1).integers(len(decisions), size=(_DRAWS, len(decisions)))
    drawn = [part[picks].sum(axis=1) for part in (decisions, kept, wrong, right)]
    return [
        choice.name,
        _share(wrong.sum(), kept.sum(), drawn[2], drawn[1]),
        _share(decisions.sum() - kept.sum(), decisions.sum(), drawn[0] - drawn[1], drawn[0]),
        _share(right.sum(), decisions.sum(), drawn[3], drawn[0]),
        f"{decisions.sum():.0f}",
        f"{kept.sum():.0f}",
    ]


def _sums(choice: Choice, records: Sequence[Record]) -> Sums:
    """For each scenario: decisions, kept, wrong among kept, right in the end."""
    sums: dict[str, Sums] = {}
    for record in records:
        kept = choice.keeps(record)
        right = bool(record.correct) if kept else record.is_central_right
        counted = np.array([1, kept, kept and not record.correct, right], dtype=np.float64)
        sums[record.scenario] = sums.get(record.scenario, 0.0) + counted
    return np.stack(list(sums.values()))


def _share(part: float, whole: float, parts: Sums, wholes: Sums) -> str:
    """A share with the interval of its values over resampled scenarios."""
    if whole == 0:
        return "-"
    low, high = np.percentile(parts / np.maximum(wholes, 1.0), _INTERVAL)
    share = f"{part / whole:.1%}"
    return share if low == high else f"{share} ({low:.1%} to {high:.1%})"


def _together(records: Sequence[Record]) -> float:
    """Variance of a scenario's wrong answers over what it were if they were independent."""
    days, _kept, wrong, _right = _sums(Choice("", lambda _record: True), records).T
    share = wrong.sum() / days.sum()
    return float(np.square(wrong - share * days).mean() / (share * (1 - share) * days.mean()))


def _kinds(choice: Choice, records: Sequence[Record]) -> str:
    rows = [["asked where", "decisions", "kept", "wrong among kept", "edge alone right", "center right"]]
    for name, belongs in _KINDS:
        some = [record for record in records if belongs(record)]
        kept = [record for record in some if choice.keeps(record)]
        wrong = sum(not record.correct for record in kept)
        rows.append(
            [
                name,
                str(len(some)),
                str(len(kept)),
                f"{wrong} ({wrong / max(len(kept), 1):.1%})",
                f"{sum(record.correct for record in some) / len(some):.1%}",
                f"{sum(record.is_central_right for record in some) / len(some):.1%}",
            ]
        )
    return markdown(rows)


_KINDS: Final[tuple[tuple[str, Callable[[Record], bool]], ...]] = (
    ("no leak is open", lambda record: record.zone == "none"),
    ("a leak is open in the gateway's district", lambda record: record.zone == record.gateway),
    ("a leak is open in another district", lambda record: record.zone not in {"none", record.gateway}),
)


def _center(records: Sequence[Record]) -> str:
    rows = [["open leak", "decisions", "right zone", "another zone", "none"]]
    for size in SIZE_CLASSES:
        some = [each for each in records if size.low_ls <= each.size_ls < size.high_ls]
        rows.append([f"{size.name} {size.low_ls:g}-{size.high_ls:g} L/s", *_named(some)])
    rows.append(["none", *_named([each for each in records if each.zone == "none"])])
    zones = sorted({each.zone for each in records} - {"none"})
    by_zone = [["zone", "decisions", "right zone", "another zone", "none"]]
    by_zone += [[zone, *_named([each for each in records if each.zone == zone])] for zone in zones]
    return f"{markdown(rows)}\n\n{markdown(by_zone)}"


def _named(records: Sequence[Record]) -> list[str]:
    counts = Counter(_verdict(record) for record in records)
    return [str(len(records)), *(f"{counts[each] / len(records):.1%}" for each in ("right", "other", "none"))]


def _verdict(record: Record) -> str:
    if record.central == record.zone:
        return "right"
    return "none" if record.central == "none" else "other"


if __name__ == "__main__":
    main()
