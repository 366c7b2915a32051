"""A device's page in words: each part as a text. Pure."""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from rich.text import Text

from fleet_console import tables
from fleet_console.screens import looks
from fleet_console.sources.views import (
    Conclusion,
    DevicePage,
    Finding,
    Health,
    Link,
    Reading,
    Update,
    Version,
    Wanted,
)
from fleet_protocol.messages import Quality, ShadowReport
from fleet_protocol.targets import Kind, Mode
from fleet_protocol.texts import _

Age = Callable[[int | None], str]
"""How long ago a moment on the source's clock is."""

Key = tuple[str, str, str]
"""Of an artifact: its kind, its name, and how it is run."""

_DOWNLOADING: Final = "downloading"

_NAMES: Final = 12
"""Characters before a fact."""


def head(page: DevicePage, age: Age) -> Text:
    """What it is and whether it is there, in a line."""
    device, report = page.device, page.report
    if page.link is not None:
        parts = [_link(page.link)]
    else:
        heard = _("heard {age} ago").format(age=age(device.heard_ms)) if device.heard_ms else _("never heard")
        parts = [looks.state(device.state).text(), Text(heard)]
    parts.append(Text(device.profile, looks.QUIET))
    if device.site:
        parts.append(Text(device.site, looks.QUIET))
    if report:
        parts.append(Text(report.agent, looks.QUIET))
    return Text(" · ", looks.QUIET).join(parts)


def health(items: tuple[Health, ...], age: Age) -> Text:
    """What is raised, what it means, and what to do next."""
    if not items:
        return Text.assemble(looks.WELL.text(), (_("   nothing is raised"), looks.QUIET))
    return Text("\n\n").join(_health(each, age) for each in items)


def models(page: DevicePage, age: Age) -> Text:
    """Every model with its policy and its last answer."""
    report = page.report
    known = report.models if report else ()
    answers = {each.model: each for each in page.conclusions}
    parts = []
    for model in known:
        text = Text.assemble(
            (model.name, f"bold {looks.TEXT}"),
            (f" {model.version}", looks.TEXT),
            (_("   release {release} · {runtime}").format(release=model.release, runtime=model.runtime),
             looks.QUIET),
        )  # fmt: skip
        policy = model.policy or _("no policy: answers are reported, nothing is raised")
        text.append("\n" + _("policy {policy}").format(policy=policy), looks.QUIET)
        text.append("\n")
        text.append_text(_answer(answers.pop(model.name, None), age))
        parts.append(text)
    parts += [_shadow(each) for each in (report.shadows if report else ())]
    for name, answer in answers.items():
        text = Text.assemble((name, f"bold {looks.TEXT}"), (_("   runs elsewhere"), looks.QUIET), "\n")
        parts.append(text.append_text(_answer(answer, age)))
    return Text("\n\n").join(parts) if parts else Text(_("No model runs here."), looks.QUIET)


def _shadow(shadow: ShadowReport) -> Text:
    """A model in shadow, and how it compares."""
    text = Text.assemble((shadow.model, f"bold {looks.TEXT}"), (f" {shadow.version}", looks.TEXT))
    told = _("   release {release} · in shadow of {against}")
    text.append(told.format(release=shadow.release, against=shadow.against or "—"), looks.QUIET)
    for line in tables.comparison(msgspec.to_builtins(shadow)):
        text.append(f"\n{line}", looks.TEXT)
    return text


def updates(page: DevicePage, age: Age) -> Text:
    """What it shall have beside what it runs, and how far the way there is."""
    keys = list(dict.fromkeys(_keys(page)))
    if not keys:
        told = _("Nothing is assigned, and nothing was ever updated.")
        if page.desired is None:
            told = _("No update was ever reported.")
            if page.link is not None:
                told += " " + _("What this device shall have, the server knows.")
        return Text(told, looks.QUIET)
    return Text("\n\n").join(_artifact(page, key, age) for key in keys)


def agent(page: DevicePage, age: Age) -> Text:
    """What waits there, what it measures with, and how old its word is."""
    report = page.report
    if report is None:
        return Text(_("It has not reported yet."), looks.QUIET)
    spool = report.spool
    waiting = _("{batches} batches, {size}").format(
        batches=looks.count(spool.batches), size=looks.size(spool.bytes)
    )
    dropped = _("{count} records ever dropped").format(count=looks.count(spool.dropped_records))
    clock = _("trusted") if report.clock == 0 else _("NOT TRUSTED: the server dates the readings")
    facts = [
        *([(_("broker"), Text(page.link.broker))] if page.link else []),
        (_("waiting"), Text(waiting)),
        ("", Text(dropped, looks.AMBER if spool.dropped_records else looks.QUIET)),
        *((_("sensor"), Text(f"{each.name} ({each.kind})")) for each in report.sensors),
        (_("clock"), Text(clock, looks.TEXT if report.clock == 0 else looks.AMBER)),
        (_("reported"), Text(_("{age} ago").format(age=age(page.reported_ms)))),
    ]
    return _facts(facts)


def findings(items: tuple[Finding, ...]) -> Text:
    """What the doctor found, what is wrong first."""
    wrong = [each for each in items if not each.ok]
    parts = [_finding(each) for each in (*wrong, *(each for each in items if each.ok))]
    count = len(wrong)
    verdict = _("{count} of {total} checks ask for something").format(count=count, total=len(items))
    title = Text(verdict if count else _("✓ nothing is wrong"), looks.AMBER if count else looks.LEAF)
    return Text("\n").join([title, Text(), *parts])


def readings(items: tuple[Reading, ...]) -> Text:
    """What a sensor gave just now."""
    lines = []
    for each in items:
        value = "—" if each.value is None else f"{each.value:.6g}"
        line = Text.assemble((f"{each.metric:<24} ", looks.QUIET), (f"{value:>12}", f"bold {looks.TEXT}"))
        line.append(f" {each.unit:<8} ", looks.QUIET)
        lines.append(line.append_text(looks.quality(each.quality).text()))
    return Text("\n").join(lines)


def badges(page: DevicePage) -> dict[str, str]:
    """What each part of the page has to say, in a character or two, for the line that leads to them."""
    worst = page.device.worst
    states = page.report.updates if page.report else ()
    return {
        "values": str(len(page.values)),
        "health": f"{looks.severity(worst.level if worst else None).shape}"
        + (f" {len(page.device.health)}" if page.device.health else ""),
        "models": str(len(page.report.models) if page.report else 0),
        "updates": looks.update(states[-1].state).shape if states else "·",
        "agent": "",
    }


def _link(link: Link) -> Text:
    if not link.up:
        return Text(_("○ no link to the broker"), f"bold {looks.AMBER}")
    text = Text(_("● linked for {age}").format(age=tables.age(0, link.up_ms or 0)), looks.LEAF)
    if link.acknowledged_age_ms is not None:
        told = _(" · stored {age} ago")
        text.append(told.format(age=tables.age(0, link.acknowledged_age_ms)), looks.TEXT)
    return text


def _health(each: Health, age: Age) -> Text:
    mark = looks.severity(each.level)
    text = Text.assemble(mark.text(), "  ", (each.title, f"bold {looks.TEXT}"))
    text.append(f"   {each.code}, {age(each.since_ms)}", looks.QUIET)
    text.append(f"\n{each.meaning}", looks.QUIET)
    if each.detail:
        text.append(f"\n{each.detail}", looks.TEXT)
    if each.explained_by:
        because = _("because of {codes}").format(codes=", ".join(each.explained_by))
        text.append(f"\n{because}", looks.QUIET)
    return text.append(f"\n→ {each.next_step}", looks.SAND)


def _answer(answer: Conclusion | None, age: Age) -> Text:
    if answer is None:
        return Text(_("no answer yet"), looks.QUIET)
    text = Text.assemble(
        (answer.label, f"bold {looks.TEXT}"),
        (_("  score {score:.3g}, {sure:.0%} sure").format(score=answer.score, sure=answer.confidence),
         looks.TEXT),
        (_(" · {age} ago").format(age=age(answer.time_ms)), looks.QUIET),
    )  # fmt: skip
    if answer.latency_us:
        text.append(_(" · took {ms:.3g} ms").format(ms=answer.latency_us / 1000), looks.QUIET)
    if answer.uncertain:
        text.append("  " + _("? uncertain"), looks.AMBER)
    return text


def _keys(page: DevicePage) -> Iterator[Key]:
    yield from map(_key, page.desired or ())
    yield from map(_key, page.report.updates if page.report else ())
    yield from map(_key, page.versions)


def _key(each: Wanted | Update | Version) -> Key:
    return each.kind, each.name, each.mode


def _artifact(page: DevicePage, key: Key, age: Age) -> Text:
    report = page.report
    wanted = next((each for each in page.desired or () if _key(each) == key), None)
    update = next((each for each in (report.updates if report else ()) if _key(each) == key), None)
    kind, name, mode = key
    running = _running(page, key, update)
    place = _("  {kind} in shadow") if mode == Mode.SHADOW else "  {kind}"
    text = Text.assemble((name, f"bold {looks.TEXT}"), (place.format(kind=kind), looks.QUIET))
    facts = []
    if page.desired is not None:
        facts.append((_("shall have"), _desired(wanted, running)))
    facts.append((_("runs"), Text(_("release {release}").format(release=running) if running else "—")))
    version = next((each for each in page.versions if _key(each) == key), None)
    if version is not None:
        facts += _signed(version, age)
    if update is not None:
        facts.append((_("update"), _update(update, age)))
    text.append("\n").append_text(_facts(facts))
    return text.append_text(_why_not(update)) if update else text


def _signed(version: Version, age: Age) -> list[tuple[str, Text]]:
    """What the device has signed, how old that is, and why it differs from the wish."""
    told = {"online": _("signed {age} ago"), "courier": _("signed, brought by courier {age} ago")}
    words = told.get(version.reported_by, _("unsigned: the broker says so"))
    mark = looks.QUIET if version.reported_by in told else looks.AMBER
    facts = [(_("word"), Text(words.format(age=age(version.attested_ms)), mark))]
    if version.why not in {"same", "unwished"}:
        facts.append((_("why"), Text(version.text, looks.AMBER)))
    return facts


def _running(page: DevicePage, key: Key, update: Update | None) -> int:
    """The release that runs: as the update knows it, else as the model says."""
    kind, name, mode = key
    if update is not None and update.installed:
        return update.installed
    found = [each.release for each in (page.report.models if page.report else ()) if each.name == name]
    return found[0] if found and kind == Kind.MODEL and mode == Mode.ACT else 0


def _desired(wanted: Wanted | None, running: int) -> Text:
    if wanted is None:
        return Text(_("· nothing of the kind: what runs may stay"), looks.QUIET)
    text = Text(_("release {release}").format(release=wanted.release))
    if wanted.version:
        text.append(f" ({wanted.version})", looks.QUIET)
    if wanted.release == running:
        return text.append(_("  ✓ it does"), looks.LEAF)
    return text.append(_("  ≠ not yet"), looks.AMBER)


def _update(update: Update, age: Age) -> Text:
    text = looks.update(update.state).text()
    text.append(_("  release {release}").format(release=update.release), looks.TEXT)
    since = _("version {version}, since {age}")
    told = since.format(version=update.version or "—", age=age(update.since_wall_ms))
    text.append("\n" + " " * _NAMES + told, looks.QUIET)
    if update.state == _DOWNLOADING and update.size:
        share = update.done / update.size
        told = _("of {size}").format(size=looks.size(update.size))
        text.append("\n" + " " * _NAMES).append_text(looks.bar(share, 10, looks.SKY))
        text.append(f" {share:.0%}  ", looks.SKY).append(told, looks.QUIET)
    return text


def _why_not(update: Update) -> Text:
    """The words for a refusal, and what to do next."""
    text = Text()
    if update.refusal:
        meaning, next_step = looks.refusal(update.refusal)
        text.append(
            "\n" + _("refused ({code}): {meaning}").format(code=update.refusal, meaning=meaning), looks.RED
        )
        if next_step:
            text.append(f"\n→ {next_step}", looks.SAND)
    if update.detail:
        text.append(f"\n{update.detail}", looks.TEXT)
    return text


def _finding(finding: Finding) -> Text:
    if finding.ok:
        return Text.assemble(("✓ ", looks.LEAF), (finding.text, looks.QUIET))
    text = Text.assemble(("▲ ", looks.AMBER), (finding.text, looks.TEXT), (f"  {finding.code}", looks.QUIET))
    return text.append(f"\n  → {finding.next_step}", looks.SAND) if finding.next_step else text


def _facts(facts: list[tuple[str, Text]]) -> Text:
    return Text("\n").join(Text.assemble((f"{name:<{_NAMES}}", looks.QUIET), fact) for name, fact in facts)


def quality(known: Quality) -> Text:
    """A value's quality; a good one is quiet."""
    return looks.quality(known).text()
