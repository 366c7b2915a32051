"""A policy's text with another escalation table: the rest of it, comments too, stays as it was written."""

import re
from typing import Final

import msgspec

from fleet_console.errors import ConsoleError
from fleet_protocol import policy
from fleet_protocol.escalation import Escalation
from fleet_protocol.policy import Policy
from fleet_protocol.texts import _

_HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
_TABLE: Final = re.compile(r"^[ \t]*\[\s*escalation\b[^\n]*\n?", re.MULTILINE)


def with_escalation(text: str, table: Escalation) -> str:
    """``text`` with ``table`` as its ``[escalation]`` and the next release.

    A version that is just the number of the release goes up with it; any other stays.

    Raises:
        PolicyError: ``text`` is no policy.
        ConsoleError: it is written in a way in which only a person can change it.
    """
    given = policy.parse(text.encode())
    wanted = _next(given, table)
    head, rest = _parted(_without_table(text))
    for key, value in (("release", str(wanted.release)), ("version", f'"{wanted.version}"')):
        head = re.sub(rf"^(\s*{key}\s*=\s*)[^\s#]+", rf"\g<1>{value}", head, count=1, flags=re.MULTILINE)
    made = f"{head}{rest.rstrip()}\n\n{_written(table)}"
    if policy.parse(made.encode()) != wanted:
        raise ConsoleError(
            _(
                "policy {policy} is written in a way that cannot be changed here; write 'release = N' in a "
                "line of its own before the first table, and [escalation] as a table"
            ).format(policy=given.name)
        )
    return made


def _next(given: Policy, table: Escalation) -> Policy:
    release = given.release + 1
    version = str(release) if given.version == str(given.release) else given.version
    return msgspec.structs.replace(given, release=release, version=version, escalation=table)


def _without_table(text: str) -> str:
    while match := _TABLE.search(text):
        following = _HEADER.search(text, match.end())
        text = text[: match.start()] + (text[following.start() :] if following else "")
    return text


def _parted(text: str) -> tuple[str, str]:
    """What stands before the first table, and the rest."""
    first = _HEADER.search(text)
    place = first.start() if first else len(text)
    return text[:place], text[place:]


def _written(table: Escalation) -> str:
    budget = table.budget
    lines = [
        f'model_sha256 = "{table.model_sha256}"',
        f"temperature = {table.temperature}",
        f"threshold = {table.threshold}",
        f"alpha = {table.alpha}",
        f"delta = {table.delta}",
        f"n_cal = {table.n_cal}",
        *([f"expires = {table.expires.isoformat()}"] if table.expires else []),
        f"audit_share = {table.audit_share}",
        f"budget = {{ per_hour = {budget.per_hour}, burst = {budget.burst} }}",
        f"deadline_s = {table.deadline_s}",
    ]
    return "\n".join(("[escalation]", *lines)) + "\n"
