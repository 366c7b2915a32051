"""Groups: saved filters over devices.

A filter is terms like ``site=net3 profile=simulated tag=north id=gw-1*``. All of them must hold; ``*``
stands for any run of characters; a device with several tags needs one that fits; an empty filter is every
device. Which devices that are is asked anew
each time: a group holds no devices, and a rollout cuts its waves from those of its start.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor, Scope
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Device, DeviceGroup
from fleet_server.devices.scope import ALL, within
from fleet_server.devices.tags import all_tags
from fleet_server.errors import FilterError, RolloutNotFound

FIELDS: Final = ("site", "profile", "tag", "id")
"""What a term may ask for."""

MAX_FILTER: Final = 300
"""Characters of a filter; a person reads it whole."""

_TERM: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: ``field`` of a device looks like ``pattern``."""

    field: str
    pattern: str

    def holds(self, value: str | None) -> bool:
        """Whether a device with ``value`` is meant. One without a value never is."""
        return value is not None and _looks_like(value, self.pattern)


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as people see it; ``devices`` are as many as it holds now."""

    name: str
    filter: str
    created_ms: int
    devices: int


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a filter.

    Raises:
        FilterError: a term that is none; the message says where it begins.
    """
    if len(text) > MAX_FILTER:
        raise FilterError(
            _("the filter has {length} characters; at most {limit} are taken").format(
                length=len(text), limit=MAX_FILTER
            )
        )
    return tuple(_term(found.group(), found.start() + 1) for found in _TERM.finditer(text))


def holds(terms: tuple[Term, ...], device: Device, tags: Sequence[str]) -> bool:
    """Whether all ``terms`` hold for ``device``, which has ``tags``."""
    values: Mapping[str, Sequence[str | None]] = {
        "site": (device.site,),
        "profile": (device.profile,),
        "tag": tags,
        "id": (device.id,),
    }
    return all(any(term.holds(value) for value in values[term.field]) for term in terms)


def set_group(engine: Engine, tenant: str, actor: Actor, name: str, text: str) -> GroupView:
    """Save ``text`` under ``name``, in place of what was saved there; rollouts that run keep their devices.

    Raises:
        FilterError: it is no filter.
    """
    parse(text)
    with writing(engine) as session:
        group = session.get(DeviceGroup, (tenant, name), with_for_update=True)
        before = None if group is None else group.filter
        if group is None:
            group = DeviceGroup(tenant=tenant, name=name, filter=text, created_ms=wall_ms())
        group.filter = text
        session.add(group)
        session.flush()
        view = _view(session, group, ALL)
        detail = {"before": before, "filter": text, "devices": view.devices}
        audit.append(session, tenant, actor, Change("group.set", name, before, text, detail))
    return view


def list_groups(
    engine: Engine, tenant: str, after: str, limit: int, scopes: Collection[Scope] = ALL
) -> list[GroupView]:
    """At most ``limit`` groups in the order of their names, from the first one after ``after`` on.

    Devices outside ``scopes`` are not counted.
    """
    query = select(DeviceGroup).where(DeviceGroup.tenant == tenant, DeviceGroup.name > after)
    with Session(engine) as session:
        groups = session.exec(query.order_by(col(DeviceGroup.name)).limit(limit)).all()
        return [_view(session, group, scopes) for group in groups]


def members(session: Session, tenant: str, name: str, scopes: Collection[Scope] = ALL) -> list[Device]:
    """The devices of the group ``name`` within ``scopes`` now, in the order of their names.

    Raises:
        RolloutNotFound: there is no such group.
    """
    group = session.get(DeviceGroup, (tenant, name))
    if group is None:
        raise RolloutNotFound(_("there is no group {name!r}").format(name=name[:80]))
    return _members(session, group, scopes)


def _members(session: Session, group: DeviceGroup, scopes: Collection[Scope]) -> list[Device]:
    terms = parse(group.filter)
    query = select(Device).where(Device.tenant == group.tenant, within(scopes)).order_by(col(Device.id))
    devices = session.exec(query).all()
    tags = all_tags(session, group.tenant)
    return [device for device in devices if holds(terms, device, tags.get(device.id, ()))]


def _view(session: Session, group: DeviceGroup, scopes: Collection[Scope]) -> GroupView:
    return GroupView(group.name, group.filter, group.created_ms, len(_members(session, group, scopes)))


def _term(text: str, position: int) -> Term:
    field, sign, pattern = text.partition("=")
    if not sign or not pattern or "=" in pattern:
        raise FilterError(
            _(
                "at character {position}: {term!r} is no term; write FIELD=VALUE, for example site=north"
            ).format(position=position, term=text[:40])
        )
    if field not in FIELDS:
        raise FilterError(
            _("at character {position}: devices have no field {field!r}; use {known}").format(
                position=position, field=field[:40], known=", ".join(FIELDS)
            )
        )
    return Term(field, pattern)


def _looks_like(value: str, pattern: str) -> bool:
    """Whether ``value`` is ``pattern`` with any text for each ``*``; in linear time."""
    first, *rest = pattern.split("*")
    if not rest:
        return value == first
    *middle, last = rest
    if len(value) < len(first) + len(last) or not (value.startswith(first) and value.endswith(last)):
        return False
    place, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
