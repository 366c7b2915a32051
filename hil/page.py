"""What self-contained HTML pages are made of: the document, tables, and the parts of SVG plots. Pure.

Nothing is loaded from elsewhere, colors follow the reader's light or dark mode, and every text is
escaped here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from fleet_protocol.texts import _
from hil.account import Account

LEFT: Final = 10

STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882;
  --good: light-dark(#2a7f4f, #5fbf8a); --bad: light-dark(#b3261e, #f2857d);
  --wait: light-dark(#3b6ea5, #7fb0e6); --act: light-dark(#b26a00, #e0a24a); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #16181b); color: light-dark(#1c1f23, #e4e6e9); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .2rem; }
p.promise { margin: 0 0 .6rem; font-style: italic; }
.passed { color: var(--good); } .failed { color: var(--bad); } .skipped { color: var(--act); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; } th { font-weight: 600; }
td.n, th.n { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; background: var(--soft); border-radius: 6px; }
svg .grid { stroke: var(--line); stroke-width: .5; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg text.inside { fill: #fff; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: 6px; font-size: 12px; }
details summary { cursor: pointer; }
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places: ``first`` to ``last`` become ``start`` to ``end``."""

    first: float
    last: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where ``value`` is drawn."""
        span = self.last - self.first or 1.0
        return self.start + (value - self.first) / span * (self.end - self.start)


def document(title: str, body: str, style: str = "") -> str:
    """The whole page; ``body`` is HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def svg(width: float, height: float, label: str, body: str) -> str:
    """A drawing; ``label`` says to whoever cannot see it what it shows."""
    box = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return f"{box}{body}</svg>"


def text(x: float, y: float, words: str, how: str = "") -> str:
    """Words in a drawing; ``how`` are more attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {how}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, how: str = 'class="grid"') -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {how}/>'


def curve(points: Iterable[tuple[float, float]], color: str) -> str:
    """A line through ``points``."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="1.4"/>'


def ticks(end: float, most: int = 10) -> list[float]:
    """Round numbers from 0 to ``end``, at most about ``most`` of them."""
    step = next((each for each in (1, 2, 5, 10, 20, 30, 60, 120, 300) if end / each <= most), 600)
    return [float(at) for at in range(0, int(end) + 1, step)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table of texts and of numbers, which stand to the right."""
    content = [list(row) for row in rows]
    numeric = {place for row in content for place, cell in enumerate(row) if isinstance(cell, int)}
    head = "".join(_cell("th", words, is_number=place in numeric) for place, words in enumerate(heads))
    lines = "".join(
        f"<tr>{''.join(_cell('td', cell, is_number=isinstance(cell, int)) for cell in row)}</tr>"
        for row in content
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def accounts(items: Iterable[Account]) -> str:
    """The account of every device's readings."""
    heads = (_("device"), _("served"), _("stored"), _("kills"), _("cut short"), _("lost"), _("doubled"))
    return table(
        heads,
        (
            (
                each.device, each.served, each.stored, each.kills,
                len(each.cut_short), len(each.lost), len(each.doubled),
            )
            for each in items
        ),
    )  # fmt: skip


def _cell(tag: str, content: str | int, *, is_number: bool) -> str:
    kind = ' class="n"' if is_number else ""
    return f"<{tag}{kind}>{escape(str(content))}</{tag}>"
