"""How a model in shadow compares, for whoever stands at the cabinet: read from what the agent keeps."""

from collections.abc import Iterator
from pathlib import Path

from edge_agent.pipeline.comparison import Compared
from edge_agent.pipeline.keeper import FILE_NAME
from edge_agent.pipeline.memory import MAX_BYTES, decode
from fleet_protocol.texts import _


def shadow_lines(data: Path) -> Iterator[str]:
    """A few lines for each shadow, as the agent last wrote them down into its ``data`` folder."""
    try:
        with (data / FILE_NAME).open("rb") as file:
            memory = decode(file.read(MAX_BYTES))
    except (OSError, ValueError):
        return
    for model in memory.models:
        if model.compared is not None:
            yield from _lines(model.name, model.compared)


def _lines(name: str, compared: Compared) -> Iterator[str]:
    if not compared.windows:
        yield _("{name} in shadow: no window was answered by both yet").format(name=name)
        return
    acting_us, shadow_us = compared.medians_us
    yield _(
        "{name} in shadow: {windows} windows answered by both, labels agree on {agreement:.1%} of them; "
        "scores differ by {mean:.3g}, at most {largest:.3g}; an answer takes {shadow:.3g} ms, and "
        "{acting:.3g} ms of {version}"
    ).format(
        name=name,
        windows=compared.windows,
        agreement=compared.agreement,
        mean=compared.mean,
        largest=compared.largest,
        shadow=shadow_us / 1000,
        acting=acting_us / 1000,
        version=compared.version,
    )
    for each in compared.pairs:
        yield _("  {version} says {acting}, the shadow {shadow}: {windows} windows").format(
            version=compared.version, acting=each.acting, shadow=each.shadow, windows=each.windows
        )
