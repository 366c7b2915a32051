"""Answers as text: aligned columns that a person reads and a pipe can cut. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fleet_protocol.messages import Quality, Severity
from fleet_protocol.texts import _

_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def age(time_ms: int | None, now_ms: int) -> str:
    """How long ago, in its largest unit; a dash for never."""
    if time_ms is None:
        return "-"
    past = max(0, now_ms - time_ms)
    for size, unit in _UNITS:
        if past >= size:
            return f"{past // size} {unit}"
    return "0 s"


def safe(text: str) -> str:
    """``text`` in which nothing moves the cursor, colors, or turns direction: that is spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """``rows`` under ``heads``, each column as wide as its widest cell. What others wrote is made safe."""
    lines = [list(heads), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def devices(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of devices."""
    heads = (_("DEVICE"), _("STATE"), _("HEARD"), _("PROFILE"), _("SITE"), _("HEALTH"))
    return table(
        heads,
        (
            (
                item["id"],
                item["state"],
                age(item["heard_ms"], now_ms),
                item["profile"],
                item["site"] or "-",
                ", ".join(one["code"] for one in item["health"]) or "ok",
            )
            for item in items
        ),
    )


def invitations(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The invitations of a device."""
    heads = (_("ID"), _("STATE"), _("MADE"), _("BY"), _("PROFILE"), _("SITE"), _("REPLACES"))
    return table(
        heads,
        (
            (
                item["id"],
                item["state"],
                age(item["created_ms"], now_ms),
                item["invited_by"],
                item["profile"],
                item["site"] or "-",
                _("yes") if item["replaces"] else "-",
            )
            for item in items
        ),
    )


def batches(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of factory batches."""
    heads = (_("BATCH"), _("STATE"), _("MADE"), _("BY"), _("BOARDS"), _("PROFILE"), _("SITE"))
    return table(
        heads,
        (
            (
                item["id"],
                item["state"],
                age(item["created_ms"], now_ms),
                item["made_by"],
                f"{item['claims']}/{item['most']}",
                item["profile"],
                item["site"] or "-",
            )
            for item in items
        ),
    )


def claims(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The boards that wait for a decision."""
    heads = (_("CLAIM"), _("ASKED"), _("BOARD"), _("BATCH"), _("SITE"), _("FROM"), _("KEY"))
    return table(
        heads,
        (
            (
                item["id"],
                age(item["asked_ms"], now_ms),
                item["serial"],
                item["batch"],
                item["site"] or "-",
                item["source"],
                item["key_sha256"][:16],
            )
            for item in items
        ),
    )


def artifacts(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of published artifacts."""
    heads = (_("KIND"), _("NAME"), _("RELEASE"), _("VERSION"), _("SIZE"), _("PUBLISHED"), _("SHA-256"))
    return table(
        heads,
        (
            (
                item["kind"],
                item["name"],
                str(item["release"]),
                item["version"],
                str(item["size"]),
                age(item["created_ms"], now_ms),
                item["sha256"][:16],
            )
            for item in items
        ),
    )


def device(page: Mapping[str, Any], readings: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """One device's page with its newest values."""
    known = page["device"]
    facts = [
        (_("device"), known["id"]),
        (_("state"), known["state"]),
        (_("last heard"), age(known["heard_ms"], now_ms)),
        (_("added"), age(known["created_ms"], now_ms)),
        (_("profile"), known["profile"]),
        (_("site"), known["site"] or "-"),
        (_("tags"), ", ".join(known["tags"]) or "-"),
        *_reported(page["reported"], page["reported_ms"], now_ms),
    ]
    shadows = (page["reported"] or {}).get("shadows", ())
    parts = [table(("", ""), facts).lstrip("\n"), *map(shadow, shadows), health(known["health"], now_ms)]
    if readings:
        parts.append(values(readings, now_ms))
    return "\n\n".join(part for part in parts if part)


def shadow(one: Mapping[str, Any]) -> str:
    """How a model in shadow compares with the one that acts."""
    title = _("{model} {version} (release {release}) in shadow of {against}").format(
        model=safe(one["model"]),
        version=safe(one["version"]),
        release=one["release"],
        against=safe(one["against"]) or "-",
    )
    return "\n".join((title, *(f"  {line}" for line in comparison(one))))


def comparison(one: Mapping[str, Any]) -> Iterator[str]:
    """What was compared of a model in shadow, a line each."""
    if one["windows"]:
        yield _("{windows} windows answered by both, labels agree on {agreement:.1%} of them").format(**one)
        yield _("scores differ by {mean_difference:.3g}, at most {max_difference:.3g}").format(**one)
        yield _("an answer takes {shadow:.3g} ms; {acting:.3g} ms where it acts").format(
            shadow=one["latency_us"] / 1000, acting=one["acting_latency_us"] / 1000
        )
    else:
        yield _("no window was answered by both yet")
    for each in one["disagreements"]:
        yield _("{windows} windows: {acting} acts, {shadow} in shadow").format(
            windows=each["windows"], acting=safe(each["acting"]), shadow=safe(each["shadow"])
        )
    if one["failures"]:
        yield _("{failures} windows got no answer, {missed} of them because it was too slow").format(**one)


def values(readings: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The newest value of each metric, and how old it is."""
    heads = (_("METRIC"), _("VALUE"), _("UNIT"), _("QUALITY"), _("AGE"))
    return table(
        heads,
        (
            (
                one["metric"],
                "-" if one["value"] is None else f"{one['value']:.6g}",
                one["unit"] or "-",
                Quality(one["quality"]).name.lower(),
                age(one["time_ms"], now_ms),
            )
            for one in readings
        ),
    )


def events(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """Events, oldest first."""
    heads = (_("AGE"), _("DEVICE"), _("SEVERITY"), _("EVENT"), _("TEXT"))
    return table(
        heads,
        (
            (
                age(one["time_ms"], now_ms),
                one["device"],
                Severity(one["severity"]).name.lower(),
                one["name"],
                one["text"],
            )
            for one in items
        ),
    )


def health(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """Raised codes with what they mean and what to do next; nothing where there are none."""
    return "\n".join(_health_lines(one, now_ms) for one in items)


def _health_lines(one: Mapping[str, Any], now_ms: int) -> str:
    lines = [
        f"{one['severity'].upper()}  {one['code']}: {one['title']} ({age(one['since_ms'], now_ms)})",
        f"  {one['meaning']}",
        *([f"  {one['detail']}"] if one["detail"] else []),
        *(
            [_("  Because of: {codes}").format(codes=", ".join(one["explained_by"]))]
            if one["explained_by"]
            else []
        ),
        _("  Next: {step}").format(step=one["next_step"]),
    ]
    return "\n".join(lines)


def _reported(
    reported: Mapping[str, Any] | None, reported_ms: int | None, now_ms: int
) -> list[tuple[str, str]]:
    if reported is None:
        return []
    models = ", ".join(f"{one['name']} {one['version']} ({one['runtime']})" for one in reported["models"])
    sensors = ", ".join(f"{one['name']} ({one['kind']})" for one in reported["sensors"])
    spool = reported["spool"]
    return [
        (_("report changed"), age(reported_ms, now_ms)),
        (_("agent"), reported["agent"]),
        (_("sensors"), sensors or "-"),
        (_("models"), models or "-"),
        (
            _("waiting there"),
            _("{batches} batches, {size} bytes; {dropped} records ever dropped").format(
                batches=spool["batches"], size=spool["bytes"], dropped=spool["dropped_records"]
            ),
        ),
    ]
