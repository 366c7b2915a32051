"""A device's versions as text: what it shall have, what it has, by whose word, and why they differ. Pure."""

from collections.abc import Mapping
from typing import Any

from fleet_console.tables import age, safe, table
from fleet_protocol.targets import Mode
from fleet_protocol.texts import _


def versions(page: Mapping[str, Any], now_ms: int) -> str:
    """The table, and under it whatever is not as it shall be; nothing where there is nothing to say."""
    items = page["items"]
    if not items:
        return ""
    heads = (_("ARTIFACT"), _("SHALL HAVE"), _("HAS"), _("BY"), _("WHY"))
    rows = (
        (
            _named(one),
            release(one["desired_release"], one["desired_version"]),
            release(one["reported_release"], one["reported_version"]),
            _by(one, now_ms),
            one["why"] + (f" ({one['refusal']})" if one["refusal"] else ""),
        )
        for one in items
    )
    reasons = [_reason(one) for one in items if one["why"] not in {"same", "unwished"}]
    return "\n".join([table(heads, rows), *reasons])


def release(number: int, version: str) -> str:
    """A release with its version; nothing is a dash."""
    if not number:
        return "-"
    return f"{number} ({version})" if version else str(number)


def _named(one: Mapping[str, Any]) -> str:
    shadow = _(" in shadow") if one["mode"] == Mode.SHADOW else ""
    return f"{one['kind']} {one['name']}{shadow}"


def _by(one: Mapping[str, Any], now_ms: int) -> str:
    """Who says what runs, and how old a signed word is."""
    if one["reported_by"] == "mqtt":
        return _("the broker, unsigned")
    if not one["reported_by"]:
        return "-"
    told = _("courier, {age}") if one["reported_by"] == "courier" else _("signed, {age}")
    return told.format(age=age(one["attested_ms"], now_ms))


def _reason(one: Mapping[str, Any]) -> str:
    lines = [
        f"{_named(one)}: {one['text']}",
        *([f"  {safe(one['detail'])}"] if one["detail"] else []),
    ]
    return "\n".join(lines)
