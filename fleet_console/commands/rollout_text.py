"""Groups and rollouts as text. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fleet_console.tables import age, safe, table
from fleet_protocol.targets import WORDS, Mode, Refusal
from fleet_protocol.texts import _

DONE: Final = "done"
ENDED: Final = frozenset({DONE, "failed", "aborted"})
"""States that end a rollout."""

_SHOWN: Final = ("done", "assigned", "waiting", "failed", "left", "withdrawn")
_BAR: Final = 20


def groups(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of groups."""
    heads = (_("GROUP"), _("DEVICES"), _("SAVED"), _("FILTER"))
    rows = (
        (
            one["name"],
            str(one["devices"]),
            age(one["created_ms"], now_ms),
            one["filter"] or _("(every device)"),
        )
        for one in items
    )
    return table(heads, rows)


def _mode(rollout: Mapping[str, Any]) -> str:
    return _(" in shadow") if rollout["mode"] == Mode.SHADOW else ""


def rollouts(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of rollouts."""
    heads = (
        _("ROLLOUT"),
        _("STATE"),
        _("BEGAN"),
        _("GROUP"),
        _("ARTIFACT"),
        _("RELEASE"),
        _("DEVICES"),
        _("REASON"),
    )
    rows = (
        (
            one["id"],
            one["state"],
            age(one["created_ms"], now_ms),
            one["group"],
            f"{one['kind']} {one['name']}{_mode(one)}",
            str(one["release"]),
            counts(one["counts"]),
            one["reason"],
        )
        for one in items
    )
    return table(heads, rows)


def page(content: Mapping[str, Any], now_ms: int) -> str:
    """One rollout with its waves and devices."""
    rollout = content["rollout"]
    facts = [
        (_("reason"), rollout["reason"]),
        (_("asked by"), rollout["asked_by"] or "-"),
        (_("approved by"), ", ".join(rollout["approved_by"]) or "-"),
        (_("began"), age(rollout["created_ms"], now_ms)),
        (_("ended"), age(rollout["ended_ms"], now_ms)),
        (
            _("rules"),
            _("waves {waves}, at most {limit} failures, {soak} s between waves").format(
                waves=", ".join(rollout["waves"]), limit=rollout["max_failures"], soak=rollout["soak_s"]
            ),
        ),
    ]
    parts = [headline(rollout), table(("", ""), facts).lstrip("\n")]
    parts += [_wave(wave, now_ms) for wave in content["waves"]]
    if content["left_out"]:
        parts.append(f"{_('left out: it does not fit')}\n{_devices(content['left_out'], now_ms)}")
    return "\n\n".join(parts)


def headline(rollout: Mapping[str, Any]) -> str:
    """A rollout in one line."""
    text = _("{id}: {kind} {name} release {release}{mode} to {group}, {state}: {counts}").format(
        mode=_mode(rollout),
        counts=counts(rollout["counts"]),
        **{key: rollout[key] for key in ("id", "kind", "name", "release", "group", "state")},
    )
    return f"{text} ({rollout['detail']})" if rollout["detail"] else text


def counts(counted: Mapping[str, int]) -> str:
    """How many devices are in each state that any is in."""
    return ", ".join(f"{counted[state]} {state}" for state in _SHOWN if counted.get(state)) or "-"


def wave_line(wave: Mapping[str, Any], now_ms: int) -> str:
    """A wave in one line, with whom it waits for."""
    devices = wave["devices"]
    ended = sum(one["state"] not in {"waiting", "assigned"} for one in devices)
    filled = _BAR * ended // max(1, len(devices))
    bar = "#" * filled + "." * (_BAR - filled)
    parts = [
        _("wave {number}").format(number=wave["number"]),
        f"[{bar}]",
        f"{ended}/{len(devices)}",
        wave["state"],
    ]
    if absent := [one["id"] for one in devices if one["is_holding"]]:
        parts.append(_("waits for {devices}, not there").format(devices=_some(absent)))
    if wave["next_ms"] is not None and wave["next_ms"] > now_ms:
        parts.append(_("next in {seconds} s").format(seconds=(wave["next_ms"] - now_ms) // 1000 + 1))
    return "  ".join(parts)


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[str]:
    """What is new in ``after``, a line each: devices first, then the rollout itself."""
    known = {} if before is None else {one["id"]: one for one in members(before)}
    for one in members(after):
        if before is not None and _where(one) != _where(known[one["id"]]):
            yield f"{one['id']}: {_where(one)}"
    if before is None or before["rollout"] != after["rollout"]:
        yield headline(after["rollout"])


def under_way(wave: Mapping[str, Any], limit: int = 8) -> Iterator[str]:
    """The devices of a wave that are under way or have failed, a line each; as many as a screen takes."""
    told = [one for one in wave["devices"] if one["update"] or one["state"] == "failed"]
    told = [one for one in told if one["state"] in {"assigned", "failed"}]
    for one in told[:limit]:
        yield f"{one['id']}: {_where(one)}"
    if len(told) > limit:
        yield _("and {count} more").format(count=len(told) - limit)


def members(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The devices of all waves."""
    for wave in content["waves"]:
        yield from wave["devices"]


def _wave(wave: Mapping[str, Any], now_ms: int) -> str:
    return f"{wave_line(wave, now_ms)}\n{_devices(wave['devices'], now_ms)}"


def _devices(devices: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    heads = (_("DEVICE"), _("STATE"), _("SINCE"), _("THERE"), _("WHY"))
    rows = (
        (f"  {one['id']}", _progress(one), age(one["since_ms"], now_ms), one["presence"], _why(one))
        for one in devices
    )
    return table((f"  {heads[0]}", *heads[1:]), rows)


def _where(one: Mapping[str, Any]) -> str:
    why = _why(one)
    return f"{_progress(one)} ({why})" if why else _progress(one)


def _progress(one: Mapping[str, Any]) -> str:
    """The device's state, and how far its update is while it goes on."""
    if one["state"] != "assigned" or not one["update"]:
        return str(one["state"])
    share = f" {100 * one['done'] // one['size']}%" if one["update"] == "downloading" and one["size"] else ""
    return f"{one['update']}{share}"


def _why(one: Mapping[str, Any]) -> str:
    """Why the device is where it is; for a refusal what it means and what to do."""
    if one["refusal"] in set(Refusal):
        words = WORDS[Refusal(one["refusal"])]
        return f"{one['refusal']}: {words.meaning} {words.next_step}"
    return safe(str(one["refusal"] or one["detail"]))


def _some(names: Sequence[str], limit: int = 3) -> str:
    more = len(names) - limit
    shown = ", ".join(names[:limit])
    return _("{names} and {count} more").format(names=shown, count=more) if more > 0 else shown
