"""Drafts that several people sign: what is added up, who is missing, and what no key signs."""

import pytest

from fleet_signing import acceptance, ceremony, drafts, image, keys
from fleet_signing.ceremony import Bundle, OfflineKeys, OnlineKeys
from fleet_signing.drafts import Draft
from fleet_signing.errors import MetadataError, StaleError
from fleet_signing.metadata import now
from fleet_signing.roles import HOLDERS, KEY_NAMES
from tests.support.repositories import Repositories, policy

ONLINE = OnlineKeys.generate()


@pytest.fixture
def there() -> Repositories:
    return Repositories()


def acting(there: Repositories, *signers: int) -> Draft:
    """The publication of a policy that acts, signed by those of its two keys."""
    held = there.offline.roles["actuation"]
    added = image.add(
        there.roles["actuation"], policy(actuates=True).target, [held[number] for number in signers], now()
    )
    return Draft(Bundle((), (), {"actuation": added}), there.current)


def takes(there: Repositories, draft: Draft) -> Bundle:
    return acceptance.accept(there.current, draft.bundle, there.online.public, now(), lambda _target: None)


def test_twelve_people_who_never_meet_hold_the_first_ceremony() -> None:
    signers = {name: keys.generate() for name in KEY_NAMES}
    public = {name: signer.public_key for name, signer in signers.items()}
    draft = drafts.draw_up(public, ONLINE.public, now(), None)
    parts = [drafts.sign(draft, signer, is_new=True) for signer in signers.values()]
    assert {lack.name for lack in drafts.lacking(parts[0])} == {
        "image root", "director root", "targets", "models", "policies", "actuation", "agent", "os"
    }  # fmt: skip
    whole = drafts.decode(drafts.encode(drafts.combine(parts)))
    assert drafts.lacking(whole) == []
    acceptance.accept(None, whole.bundle, ONLINE.public, now(), lambda _target: None)


def test_a_draft_says_who_has_to_sign_yet(there: Repositories) -> None:
    draft = acting(there, 0)
    (lack,) = drafts.lacking(draft)
    assert (lack.name, lack.signatures, lack.keys) == ("actuation", 1, ("actuation-2",))
    with pytest.raises(MetadataError, match="not signed by enough"):
        takes(there, draft)
    done = drafts.sign(draft, there.offline.roles["actuation"][1])
    assert drafts.lacking(done) == []
    assert takes(there, done).roles["actuation"].signed.version == 2


def test_two_who_sign_apart_are_put_together_and_different_drafts_are_not(there: Repositories) -> None:
    draft = acting(there)
    one, two = (drafts.sign(draft, signer) for signer in there.offline.roles["actuation"])
    takes(there, drafts.combine([one, two]))
    with pytest.raises(StaleError, match="different drafts"):
        drafts.combine([one, Draft(ceremony.hold(there.offline, ONLINE.public, now()), None)])


def test_a_key_that_nothing_asks_for_signs_nothing(there: Repositories) -> None:
    draft = acting(there)
    for signer in (there.offline.roles["policies"][0], keys.generate()):
        assert not drafts.asks(draft, signer.public_key)
        with pytest.raises(MetadataError, match="nothing in this draft asks for this key"):
            drafts.sign(draft, signer)


@pytest.mark.attack
def test_a_key_signs_nothing_that_builds_on_what_it_has_never_signed(there: Repositories) -> None:
    """A thief draws up a ceremony that names the real keys, on a history of the thief's own."""
    own = OfflineKeys.generate()
    real = there.offline
    mixed = OfflineKeys(own.root, {**own.roles, "targets": real.roles["targets"]})
    public = {role: [each.public_key for each in held] for role, held in mixed.by_role.items()}
    forged = Draft(ceremony.draw_up(public, ONLINE.public, now(), None, ()))
    with pytest.raises(MetadataError, match="treat the server as stolen"):
        drafts.sign(forged, real.roles["targets"][0])
    history = ceremony.hold(own, ONLINE.public, now())
    held = zip(HOLDERS["targets"].keys, real.roles["targets"], strict=True)
    offered = {name: each.public_key for name, each in held}
    built = drafts.draw_up(offered, ONLINE.public, now(), history)
    with pytest.raises(MetadataError, match="treat the server as stolen"):
        drafts.sign(built, real.roles["targets"][0])


@pytest.mark.attack
def test_nothing_is_signed_on_top_of_what_does_not_fit_together(there: Repositories) -> None:
    draft = acting(there)
    strangers = ceremony.hold(OfflineKeys.generate(), ONLINE.public, now())
    for before in (
        Bundle(there.current.image_roots, there.current.director_roots, strangers.roles),
        Bundle(there.current.image_roots, there.current.director_roots, {}),
        Bundle((), (), there.current.roles),
    ):
        with pytest.raises(MetadataError):
            drafts.sign(Draft(draft.bundle, before), there.offline.roles["actuation"][0])


def test_only_what_changes_is_signed_again(there: Repositories) -> None:
    new = keys.generate()
    draft = drafts.draw_up({"models": new.public_key}, there.online.public, now(), there.current)
    assert [item.name for item in drafts.items(draft)] == ["image root", "director root", "targets", "models"]
    for signer in (*there.offline.root[1:], *there.offline.roles["targets"][:2]):
        draft = drafts.sign(draft, signer)
    assert [lack.keys for lack in drafts.lacking(draft)] == [("models",)]
    after = takes(there, drafts.sign(draft, new, is_new=True))
    assert drafts.known_keys(after) == {**drafts.known_keys(there.current), "models": new.public_key}


def test_a_ceremony_with_a_key_left_out_or_given_twice_is_not_drawn_up(there: Repositories) -> None:
    with pytest.raises(MetadataError, match=r"missing: root-1, .*; make each with 'fleet key new'"):
        drafts.draw_up({}, ONLINE.public, now(), None)
    twice = {"actuation-2": there.offline.roles["actuation"][0].public_key}
    with pytest.raises(MetadataError, match="two keys of actuation are one and the same"):
        drafts.draw_up(twice, there.online.public, now(), there.current)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 1, "roles": {}}'])
def test_what_is_no_draft_is_told(content: bytes) -> None:
    with pytest.raises(MetadataError):
        drafts.decode(content)
