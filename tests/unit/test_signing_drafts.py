"""Drafts that several people sign: what is added up, who is missing, and what no key signs."""

from collections.abc import Callable

import pytest
from securesystemslib.signer import Key, Signature, SSlibKey
from tuf.api.metadata import Delegations, Metadata, TargetFile

from fleet_console.commands import draft_text
from fleet_protocol.targets import ROLES
from fleet_signing import acceptance, ceremony, drafts, image, keys
from fleet_signing.ceremony import Bundle, OfflineKeys, OnlineKeys
from fleet_signing.drafts import Draft
from fleet_signing.errors import MetadataError, StaleError
from fleet_signing.metadata import now, seal
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


def with_targets(there: Repositories, change: Callable[[Delegations], None]) -> Draft:
    """What a thief hands round: new targets alone, on top of what is published."""
    top = image.delegating(
        {role: [each.public_key for each in there.offline.roles[role]] for role in ROLES}, 2, now()
    )
    assert top.delegations is not None
    change(top.delegations)
    return Draft(Bundle((), (), {"targets": Metadata(top)}), there.current)


def with_key(role: str, key: Key) -> Callable[[Delegations], None]:
    def change(found: Delegations) -> None:
        assert found.roles is not None
        found.roles[role].keyids[-1] = key.keyid
        found.keys[key.keyid] = key

    return change


@pytest.mark.attack
def test_a_draft_of_targets_alone_shows_whose_keys_are_new(there: Repositories) -> None:
    thief = keys.generate().public_key
    draft = drafts.decode(drafts.encode(with_targets(there, with_key("actuation", thief))))
    assert f"new key actuation-2: {thief.keyid}" in draft_text.describe(draft)


def one_key_more(found: Delegations) -> None:
    thief = keys.generate().public_key
    assert found.roles is not None
    found.roles["models"].keyids.append(thief.keyid)
    found.keys[thief.keyid] = thief


def one_key_twice(found: Delegations) -> None:
    """``actuation-2`` goes by its own id, and is ``actuation-1``."""
    assert found.roles is not None
    first, second = found.roles["actuation"].keyids
    found.keys[second] = SSlibKey.from_dict(second, found.keys[first].to_dict())


def a_key_that_is_not_there(found: Delegations) -> None:
    assert found.roles is not None
    del found.keys[found.roles["models"].keyids[0]]


def one_signature(found: Delegations) -> None:
    assert found.roles is not None
    found.roles["actuation"].threshold = 1


@pytest.mark.attack
@pytest.mark.parametrize("change", [one_key_more, one_key_twice, a_key_that_is_not_there, one_signature])
def test_targets_that_give_somebody_more_than_is_agreed_are_no_draft_and_are_not_taken(
    there: Repositories, change: Callable[[Delegations], None]
) -> None:
    draft = with_targets(there, change)
    with pytest.raises(MetadataError, match=r"goes by the id|has the keys|signatures at least"):
        drafts.decode(drafts.encode(draft))
    whole = seal(draft.bundle.roles["targets"].signed, there.offline.roles["targets"])
    with pytest.raises(MetadataError, match=r"not signed by enough|has the keys|signatures at least"):
        takes(there, Draft(Bundle((), (), {"targets": whole}), draft.before))


@pytest.mark.attack
def test_one_key_under_two_ids_is_not_two_people(there: Repositories) -> None:
    """Whoever has ``actuation-1`` signs for ``actuation-2`` too."""
    targets = seal(
        with_targets(there, one_key_twice).bundle.roles["targets"].signed, there.offline.roles["targets"]
    )
    policy_that_acts = acting(there, 0).bundle.roles["actuation"]
    (signature,) = policy_that_acts.signatures.values()
    second = there.offline.roles["actuation"][1].public_key.keyid
    policy_that_acts.signatures[second] = Signature(second, signature.signature)
    with pytest.raises(MetadataError, match="goes by the id"):
        takes(
            there, Draft(Bundle((), (), {"targets": targets, "actuation": policy_that_acts}), there.current)
        )


@pytest.mark.attack
@pytest.mark.parametrize("role", ["root", "targets"])
def test_a_root_that_asks_one_person_is_no_draft_and_is_not_taken(there: Repositories, role: str) -> None:
    public = {name: [each.public_key for each in held] for name, held in there.offline.by_role.items()}
    drawn = ceremony.draw_up(public, there.online.public, now(), there.current, ())
    weak = drawn.image_roots[-1].signed
    weak.roles[role].threshold = 1
    with pytest.raises(MetadataError, match=f"{role} takes 2 signatures at least"):
        drafts.decode(drafts.encode(Draft(drawn, there.current)))
    roots = (*drawn.image_roots[:-1], seal(weak, there.offline.root))
    with pytest.raises(MetadataError, match=f"{role} takes 2 signatures at least"):
        takes(there, Draft(Bundle(roots, (), {}), there.current))


@pytest.mark.attack
def test_a_draft_with_a_path_that_is_none_of_ours_is_not_shown_to_anybody(there: Repositories) -> None:
    """A path could move the cursor, and hide what is above it."""
    policies = image.renewed(there.roles["policies"].signed, now())
    policies.targets["\x1b[2Jpolicies/leak/1.toml"] = TargetFile(1, {"sha256": "0" * 64}, "x")
    draft = Draft(Bundle((), (), {"policies": Metadata(policies)}), there.current)
    with pytest.raises(MetadataError, match="no description of ours"):
        drafts.decode(drafts.encode(draft))
