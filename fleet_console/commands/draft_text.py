"""What a draft says, for whoever is about to sign it."""

from collections.abc import Iterator

from tuf.api.metadata import Root, Snapshot, Targets

from fleet_protocol.texts import _
from fleet_signing import ceremony, drafts
from fleet_signing.ceremony import Bundle, OnlinePublic
from fleet_signing.drafts import Draft, Item, Lack


def describe(draft: Draft) -> str:
    """Every document with what is new in it, and the fingerprint to compare."""
    lines = [line for item in drafts.items(draft) for line in _item(item)]
    lines += [f"  {line}" for line in _keys(draft)]
    found = _("The draft has the fingerprint {it}").format(it=drafts.fingerprint(draft))
    return "\n".join([*lines, found])


def who_lacks(lacks: list[Lack]) -> str:
    """Who has to sign yet."""
    return "\n".join(
        _("{name} needs {count} more of the signatures by {keys}").format(
            name=lack.name, count=lack.signatures, keys=", ".join(lack.keys)
        )
        for lack in lacks
    )


def _item(item: Item) -> Iterator[str]:
    signed = item.metadata.signed
    yield _("{name} {version}, valid until {date:%Y-%m-%d}").format(
        name=item.name, version=signed.version, date=signed.expires
    )
    if isinstance(signed, Root):
        return
    before = item.former[-1].signed.targets if item.former else {}
    for path in sorted(signed.targets.keys() - before.keys()):
        yield _("  new: {path}, SHA-256 {sha256}").format(
            path=path, sha256=signed.targets[path].hashes["sha256"]
        )
    for path in sorted(before.keys() - signed.targets.keys()):
        yield _("  taken out: {path}").format(path=path)


def _keys(draft: Draft) -> Iterator[str]:
    """Which keys are other ones than before; nothing where no document of the draft names any."""
    if not draft.bundle.image_roots and Targets.type not in draft.bundle.roles:
        return
    before = drafts.known_keys(draft.before) if draft.before else {}
    for name, key in drafts.known_keys(drafts.together(draft)).items():
        if before.get(name) != key:
            yield _("new key {name}: {keyid}").format(name=name, keyid=key.keyid)
    yield _("The server's keys have the fingerprint {it}").format(
        it=ceremony.fingerprint(_online(drafts.together(draft)))
    )


def _online(bundle: Bundle) -> OnlinePublic:
    """The server's keys as the newest roots name them."""
    found = []
    for root in (bundle.image_roots[-1].signed, bundle.director_roots[-1].signed):
        (keyid,) = root.roles[Snapshot.type].keyids
        found.append(ceremony.online_key(root.keys[keyid]))
    return OnlinePublic(*found)
