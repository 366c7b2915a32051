"""Putting tags on devices and taking them off, each with its record."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.database.engine import writing
from fleet_server.database.models import DeviceTag
from fleet_server.devices.registry import find_device
from fleet_server.devices.tags import tags_of
from fleet_server.errors import LimitReached

MOST_TAGS: Final = 32
"""Of one device; a person reads them all."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of a device, in alphabetical order."""

    device: str
    tags: list[str]


def tag(engine: Engine, tenant: str, device: str, word: str, actor: Actor) -> Tags:
    """Put ``word`` on ``device``; nothing changes where it is there already.

    Raises:
        NotFound: there is no such device.
        LimitReached: it has as many tags as it may.
    """
    with writing(engine) as session:
        find_device(session, tenant, device)
        return put(session, tenant, device, [word], actor)


def untag(engine: Engine, tenant: str, device: str, word: str, actor: Actor) -> Tags:
    """Take ``word`` off ``device``; nothing changes where it is not there.

    Raises:
        NotFound: there is no such device.
    """
    with writing(engine) as session:
        find_device(session, tenant, device)
        before = tags_of(session, tenant, [device]).get(device, [])
        after = [each for each in before if each != word]
        if after != before:
            session.delete(session.get_one(DeviceTag, (tenant, device, word)))
            _record(session, tenant, device, (before, after), actor)
        return Tags(device, after)


def put(session: Session, tenant: str, device: str, words: Iterable[str], actor: Actor) -> Tags:
    """Put ``words`` on ``device``, in the transaction of ``session``; raises as :func:`tag`."""
    before = tags_of(session, tenant, [device]).get(device, [])
    after = sorted({*before, *words})
    if len(after) > MOST_TAGS:
        raise LimitReached(_("a device has at most {most} tags").format(most=MOST_TAGS))
    for word in after:
        if word not in before:
            session.add(DeviceTag(tenant=tenant, device=device, tag=word))
    if after != before:
        _record(session, tenant, device, (before, after), actor)
    return Tags(device, after)


def _record(
    session: Session, tenant: str, device: str, tags: tuple[list[str], list[str]], actor: Actor
) -> None:
    before, after = tags
    change = Change("device.tag", device, before, after, {"before": before, "after": after})
    append(session, tenant, actor, change)
