"""Finds out what ails an agent, on the board itself, and says what to do about each thing.

What is touched is touched by ``probes`` and ``board``; here it is judged. Everything that
``edge-agent check`` finds is found here too; ``check`` is the part that needs no network and tells
by its exit code whether the agent would start.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from edge_agent import check
from edge_agent.allowance import MIB, UNKNOWN, Allowance, allowance
from edge_agent.clock import Clock, boot_id
from edge_agent.config import Broker, Config
from edge_agent.errors import AgentError, IdentityError, UpdateError
from edge_agent.identity.identity import Identity, load_identity
from edge_agent.service import probes
from edge_agent.service.board import Board, differences, look, used_disk_bytes, used_memory_mib
from edge_agent.updates.osimage.choice import updater_of
from fleet_protocol.health import CATALOG
from fleet_protocol.manifest import Runtime
from fleet_protocol.texts import _

_LATE: Final = 0.9
"""Of a certificate's life; by then it was to be renewed, and something keeps it from that."""

SLOW_SHARE: Final = 0.25
"""Of the time between two commits; a disk that takes more of it has no room for a burst of events."""

_LOG_MIB: Final = 2
"""What the store's write-ahead log may take beside its quota."""

_DAY_MS: Final = 86_400_000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``next_step`` says what to do, and is empty where all is well."""

    code: str
    ok: bool
    text: str
    next_step: str = ""


def findings(config: Config, clock: Clock | None = None) -> list[Finding]:
    """Look at everything; takes seconds, and longer with a broker that does not answer.

    ``clock`` is that of an agent that asks about itself: it may have seen the clock being set.
    """
    allowed = allowance(config)
    board = look()
    clock = clock or Clock(boot_id(), may_stop=allowed.profile.rtc.may_stop)
    identity, identity_findings = _identity(config, clock)
    return [
        *_profile(board, allowed),
        _board(board),
        memory(board, used_memory_mib(), allowed),
        _disk(config, allowed),
        _commits(config, allowed),
        *_runtimes(config, allowed),
        _clock(board, clock),
        *identity_findings,
        renewal(config.server_url),
        _broker(config.broker, identity, clock),
        *_sensors(config),
        *_models(config, allowed.profile.runtimes.allowed),
        *_os_updater(config, allowed),
    ]


def table(found: Sequence[Finding]) -> str:
    """``found`` for a person to read: a line each, with what to do next below, and a last word."""
    width = max(len(each.code) for each in found)
    lines = []
    for each in found:
        lines.append(f"{_('ok') if each.ok else _('BAD'):4} {each.code:{width}}  {each.text}")
        if each.next_step:
            lines.append(" " * (width + 7) + "→ " + each.next_step)
    bad = sum(not each.ok for each in found)
    lines += ["", _("{count} to mend.").format(count=bad) if bad else _("Nothing is wrong.")]
    return "\n".join(lines) + "\n"


def well(code: str, text: str) -> Finding:
    """A finding of something that is as it should be."""
    return Finding(code=code, ok=True, text=text)


def ill(code: str, text: str, next_step: str) -> Finding:
    """A finding of something that is not, with what to do."""
    return Finding(code=code, ok=False, text=text, next_step=next_step)


def from_error(code: str, error: AgentError) -> Finding:
    """A finding of what the agent itself would refuse; its message says cause, then remedy."""
    what, separator, then = str(error).rpartition("; ")
    if not separator:
        return ill(code, str(error), _("Correct it as the text says."))
    return ill(code, what, _sentence(then))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _profile(board: Board, allowed: Allowance) -> Iterator[Finding]:
    if allowed.unknown:
        yield ill("profile", allowed.unknown, CATALOG[UNKNOWN].next_step)
    excesses = [*differences(board, allowed.profile), *allowed.excesses]
    for excess in excesses:
        yield ill("profile", f"{excess.subject}: {excess.text}", excess.next_step)
    if not excesses and not allowed.unknown:
        text = _("{title}: the board has what its profile promises").format(title=allowed.profile.title)
        yield well("profile", text)


def _board(board: Board) -> Finding:
    text = _("{machine}, {cores} cores").format(machine=board.machine, cores=board.cores)
    return well("machine", text)


def memory(board: Board, own_mib: int, allowed: Allowance) -> Finding:
    """Whether what the agent may take can be had; ``own_mib`` is what this process has of it already."""
    wanted = allowed.profile.limits.memory_mib.value
    text = _("{available} of {total} MiB can be had; the agent may take {wanted}").format(
        available=board.available_mib, total=board.memory_mib, wanted=wanted
    )
    if board.available_mib + own_mib < wanted:
        return ill("memory", text, _("Stop what else runs on this board, or give it a larger one."))
    return well("memory", text)


def _disk(config: Config, allowed: Allowance) -> Finding:
    free_mib = probes.free_mib(config.data)
    used_mib = used_disk_bytes(config.data) // MIB
    limits = allowed.profile.limits
    return disk(free_mib, used_mib, allowed.spool_bytes // MIB + limits.artifacts_mib.value + _LOG_MIB)


def disk(free_mib: int, used_mib: int, wanted_mib: int) -> Finding:
    """Whether the disk has room for all that the agent may store, of which it has ``used_mib`` already."""
    text = _("{free} MiB are free; the agent may store {wanted} MiB and has {used}").format(
        free=free_mib, wanted=wanted_mib, used=used_mib
    )
    if free_mib + used_mib < wanted_mib:
        return ill("disk", text, _("Free space for the data folder, or lower 'max_bytes' of [spool]."))
    return well("disk", text)


def _commits(config: Config, allowed: Allowance) -> Finding:
    try:
        speed = probes.commit_speed(config.data)
    except OSError as error:
        return ill(
            "commit",
            _("{folder} cannot be written: {reason}").format(folder=config.data, reason=error.strerror),
            _("Free space, or give the agent a writable 'data' folder."),
        )
    return commits(speed, allowed.flush_interval_s)


def commits(speed: probes.CommitSpeed, interval_s: float) -> Finding:
    """Whether the disk commits fast enough for the interval that is asked of it."""
    text = _(
        "a commit takes {median:.1f} ms, at worst {worst:.1f}; one every {interval:g} s is asked"
    ).format(median=speed.median_ms, worst=speed.worst_ms, interval=interval_s)
    if speed.median_ms > interval_s * 1000 * SLOW_SHARE:
        return ill("commit", text, _("Raise 'flush_interval_s' of [spool], or replace the storage medium."))
    return well("commit", text)


def _runtimes(config: Config, allowed: Allowance) -> Iterator[Finding]:
    asked = {model.runtime for model in config.models if model.runtime is not None}
    wanted = list(dict.fromkeys([*allowed.profile.runtimes.allowed, *sorted(asked)]))
    faults = {runtime: probes.import_fault(runtime) for runtime in wanted}
    yield from runtimes(faults, needed=bool(config.models), needs=allowed.profile.runtimes.needs)


def runtimes(
    faults: dict[Runtime, str | None], *, needed: bool, needs: Sequence[str] = ()
) -> Iterator[Finding]:
    """What of the runtimes can be used; a fault is empty for one that can, None for one not installed."""
    usable = [runtime for runtime, fault in faults.items() if fault == ""]
    for runtime, fault in faults.items():
        if fault:
            text = _("{runtime} does not import: {reason}").format(runtime=runtime, reason=fault)
            yield ill("runtime", text, _("Reinstall 'argan[{runtime}]'.").format(runtime=runtime))
    if usable:
        yield well("runtime", _("can be used: {runtimes}").format(runtimes=", ".join(usable)))
    elif needed:
        first = next(iter(faults))
        remedy = _("Install 'argan[{runtime}]'.").format(runtime=first)
        about = _("It needs {needs}.").format(needs="; ".join(needs)) if needs else ""
        yield ill("runtime", _("none is installed that this board may use"), f"{remedy} {about}".strip())
    else:
        yield well("runtime", _("none is installed, and no model asks for one"))


def _clock(board: Board, clock: Clock) -> Finding:
    kept = _("a hardware clock is there") if board.has_rtc else _("there is no hardware clock")
    doubt = clock.doubt()
    if doubt:
        return ill("clock", f"{doubt}; {kept}", CATALOG["clock.untrusted"].next_step)
    return well("clock", _("it can be believed; {kept}").format(kept=kept))


def _identity(config: Config, clock: Clock) -> tuple[Identity | None, list[Finding]]:
    """The identity, if it can be used, with what there is to say of key and certificate."""
    key = _key(config.broker)
    if not key.ok:
        return None, [key, ill("certificate", _("not looked at"), _("Mend the key first."))]
    try:
        identity = load_identity(config.device, config.broker)
    except IdentityError as error:
        return None, [key, from_error("certificate", error)]
    return identity, [key, certificate(identity, clock.wall_ms(), clock.doubt())]


def _key(broker: Broker) -> Finding:
    try:
        if probes.readable_by_others(broker.key):
            return ill(
                "key",
                _("{file} can be read by others").format(file=broker.key),
                _("Run: chmod 600 {file}").format(file=broker.key),
            )
    except OSError as error:
        return ill(
            "key",
            f"{broker.key}: {error.strerror}",
            _("Enroll the device, or correct 'key' in [broker]."),
        )
    return well("key", _("{file} is its owner's alone").format(file=broker.key))


def certificate(identity: Identity, now_ms: int, doubt: str) -> Finding:
    """Whether the certificate is valid, and for how long; ``doubt`` is why the clock is not believed."""
    if doubt:
        return well("certificate", _("belongs to {device}; its dates cannot be judged by this clock").format(
            device=identity.device
        ))  # fmt: skip
    if problem := identity.date_problem(now_ms):
        what, _separator, then = problem.partition("; ")
        return ill("certificate", what, _sentence(then))
    days = (identity.not_after_ms - now_ms) / _DAY_MS
    text = _("belongs to {device} and lasts {days:.0f} more days").format(device=identity.device, days=days)
    if now_ms > identity.not_before_ms + _LATE * (identity.not_after_ms - identity.not_before_ms):
        return ill("certificate", text, _("Run 'edge-agent identity renew' and read what it says."))
    return well("certificate", text)


def renewal(url: str | None) -> Finding:
    """Whether the agent knows where to renew its certificate."""
    if url is None:
        return ill(
            "renewal",
            _("the configuration does not say where the certificate is renewed"),
            _('Add [server] with url = "https://HOST:PORT".'),
        )
    return well("renewal", _("the certificate is renewed at {url}").format(url=url))


def _broker(broker: Broker, identity: Identity | None, clock: Clock) -> Finding:
    where = f"{broker.host}:{broker.port}"
    fault = probes.broker_fault(broker, identity, clock.state())
    if fault:
        text = _("{where} cannot be reached: {reason}").format(where=where, reason=fault)
        return ill("broker", text, CATALOG["link.down"].next_step)
    if identity is None:
        text = _("{where} takes connections; this device cannot prove itself to it").format(where=where)
        return ill("broker", text, _("Mend key and certificate first."))
    return well("broker", _("{where} answers and accepts this device's certificate").format(where=where))


def _sensors(config: Config) -> Iterator[Finding]:
    problems = [from_error("sensors", error) for error in check.sensor_problems(config)]
    yield from problems
    if not problems:
        yield well("sensors", _("{count} configured").format(count=len(config.sensors)))


def _models(config: Config, preferred: Sequence[Runtime]) -> Iterator[Finding]:
    for model in config.models:
        problems = [from_error("model", error) for error in check.model_problems(model, preferred)]
        yield from problems
        if not problems:
            text = _("{model} answers its golden inputs as it should").format(model=model.folder.name)
            yield well("model", text)


def _os_updater(config: Config, allowed: Allowance) -> Iterator[Finding]:
    """Whether the tool that the profile hands images of the operating system to is there and answers."""
    named, updater = allowed.profile.os_updater, updater_of(config, allowed.profile)
    if updater is None:
        return
    try:
        booted = asyncio.run(updater.booted())
        asyncio.run(updater.marks())
    except UpdateError as error:
        text = _("{updater} does not answer: {reason}").format(updater=named, reason=error)
        yield ill("os", text, _("Install and start it, or name the board's right profile."))
    else:
        yield well("os", _("{updater} answers; {copy} runs").format(updater=named, copy=booted))
