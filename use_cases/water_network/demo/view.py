"""The live view: the city on one screen of a terminal, drawn from what the server says."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.observe import CityView, DeviceView

BARS: Final = "▁▂▃▄▅▆▇█"
EVENTS_SHOWN: Final = 6
OTHER_LINES: Final = 11
"""Lines of the screen that are neither devices nor events."""

TROUBLES: Final = frozenset({"update_refused", "update_rolled_back", "update_failed"})
"""Events that tell of an update that a device did not keep."""


def city(view: CityView, plant_s: float, note: str, height: int) -> RenderableType:
    """The whole screen of ``height`` lines; ``plant_s`` is the plant's time, ``note`` what goes on."""
    room = height - OTHER_LINES - len(view.devices)
    events = _events(view, max(1, min(EVENTS_SHOWN, room)))
    return Group(_head(view, plant_s, note), _devices(view), _pressure(view), _story(view), events, _foot())


def plant_clock(plant_s: float) -> str:
    """Day and time of day in the simulated city."""
    day, rest = divmod(int(plant_s), 86_400)
    return _("day {day} {hour:02d}:{minute:02d}").format(day=day, hour=rest // 3600, minute=rest % 3600 // 60)


def sparkline(values: Sequence[float]) -> str:
    """``values`` as one line of bars between their own least and largest."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in values)


def age(milliseconds: int | None) -> str:
    """How old a value is; one from a clock that is ahead is new."""
    return "-" if milliseconds is None else f"{max(0, milliseconds) / 1000:.1f} s"


def _head(view: CityView, plant_s: float, note: str) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(_("Argan · water network"), style="bold")
    text.append(f" · {plant_clock(plant_s)} (×{plan.TIME_FACTOR:.0f})")
    text.append(
        _(" · {readings} readings, {rate:.0f}/s · {events} events · {lost} lost").format(
            readings=view.counts["readings"],
            rate=view.readings_per_s,
            events=view.counts["events"],
            lost=view.counts["lost_records"],
        )
    )
    text.append(f"\n{note}", style="italic")
    return text


def _devices(view: CityView) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    for title, justify in (
        (_("DEVICE"), "left"),
        (_("RUNTIME"), "left"),
        (_("PRESSURE m"), "right"),
        (_("FLOW L/s"), "right"),
        (_("AGE"), "right"),
        (_("MODEL"), "left"),
        (_("ANSWER"), "left"),
        (_("SCORE"), "right"),
    ):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type] # Rich's literal
    table.add_column(_("HEALTH"), ratio=1, no_wrap=True)
    for device in view.devices:
        table.add_row(*_row(device), style="bold red" if device.label not in {None, "normal"} else "")
    return table


def _row(device: DeviceView) -> tuple[str, ...]:
    return (
        device.post.device,
        device.post.runtime,
        _number(device.pressure, 2),
        _number(device.flow, 1),
        age(device.reading_age_ms),
        device.version or "-",
        device.label or _("gathering"),
        _number(device.score, 2),
        " ".join(device.health) or device.state,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _pressure(view: CityView) -> Text:
    line = sparkline(view.pressure_history)
    return Text(_("pressure at {device}  {line}").format(device=plan.LEAK_GUARD, line=line), no_wrap=True)


def _story(view: CityView) -> Text:
    """Where the newest rollout is, what the center said last, what was refused last."""
    refused = next((one for one in reversed(view.events) if one["name"] in TROUBLES), None)
    lines = (
        _rollout(view.rollout) if view.rollout else _("no rollout yet"),
        _people(view.rollout) if view.rollout else _("nobody has asked for anything yet"),
        _answer(view.escalation, view.now_ms) if view.escalation else _("no answer of the center's yet"),
        _event(refused, view.now_ms) if refused else _("no update was refused yet"),
    )
    heads = (_("rollout"), _("people "), _("center "), _("refused"))
    return Text(
        "\n".join(f"{head}  {line}" for head, line in zip(heads, lines, strict=True)),
        no_wrap=True,
        overflow="ellipsis",
    )


def _rollout(rollout: dict[str, Any]) -> str:
    counts = rollout["counts"]
    moving = " ".join(f"{count} {state}" for state, count in counts.items() if count)
    return _("{name} {release}: {state}; {moving}; {reason}, for {group}").format(
        **{key: rollout[key] for key in ("name", "release", "state", "reason", "group")}, moving=moving
    )


def _people(rollout: dict[str, Any]) -> str:
    return _("asked by {asker}, approved by {approvers}").format(
        asker=rollout["asked_by"], approvers=", ".join(rollout["approved_by"])
    )


def _answer(escalation: dict[str, Any], now_ms: int) -> str:
    return _("zone {label} ({confidence:.0%}), {age} ago, asked by {device}").format(
        label=escalation["label"],
        confidence=escalation["confidence"],
        age=age(now_ms - escalation["answered_ms"]),
        device=escalation["device"],
    )


def _events(view: CityView, count: int) -> Panel:
    lines = [_event(event, view.now_ms) for event in reversed(view.events[-count:])]
    content = Text("\n".join(lines) or _("no event yet"), no_wrap=True, overflow="ellipsis")
    return Panel(content, title=_("events"), title_align="left")


def _event(event: dict[str, Any], now_ms: int) -> str:
    return _("{age} ago  {device}  {name}: {text}").format(
        age=age(now_ms - event["time_ms"]),
        device=event["device"],
        name=event["name"],
        text=event["text"],
    )


def _foot() -> Text:
    return Text(_("q quits and stops every process"), style="dim")
