"""What a server takes: the next version, signed by enough of the right keys, and nothing else."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import DelegatedRole, Key, Metadata, Targets

from fleet_protocol.targets import ROLES, Target
from fleet_signing import acceptance, artifacts, ceremony, image, keys
from fleet_signing.ceremony import Bundle
from fleet_signing.errors import MetadataError, SigningError, StaleError
from fleet_signing.metadata import SPEC, now, seal, target_file
from tests.support.repositories import Repositories, policy

POLICY = artifacts.of_policy(Path("use_cases/water_network/policies/leak.toml").read_bytes()).target
MODEL = artifacts.of_model(Path("use_cases/water_network/models/pressure_leak")).target


@pytest.fixture
def there() -> Repositories:
    return Repositories()


def nothing_missing(_target: Target) -> None:
    """All bytes are there."""


def accept(there: Repositories, incoming: Bundle, current: Bundle | None = None) -> Bundle:
    return acceptance.accept(current or there.bundle, incoming, there.online.public, now(), nothing_missing)


def only(**roles: Metadata[Targets]) -> Bundle:
    return Bundle((), (), roles)


def policies(there: Repositories, signed: Targets) -> Bundle:
    return only(policies=seal(signed, there.offline.roles["policies"]))


def with_policy(there: Repositories) -> Bundle:
    signers = there.offline.roles["policies"]
    return only(policies=image.add(there.bundle.roles["policies"], POLICY, signers, now()))


def test_a_first_ceremony_and_a_publication_are_taken_and_taking_them_again_changes_nothing(
    there: Repositories,
) -> None:
    first = acceptance.accept(None, there.bundle, there.online.public, now(), nothing_missing)
    assert first == there.bundle
    assert accept(there, there.bundle, first) == first
    second = accept(there, with_policy(there), first)
    assert acceptance.targets_of(second) == [POLICY]
    assert accept(there, with_policy(there), second) == second


def test_every_new_target_is_asked_for_once(there: Repositories) -> None:
    asked: list[Target] = []
    incoming = with_policy(there)
    after = acceptance.accept(there.bundle, incoming, there.online.public, now(), asked.append)
    assert asked == [POLICY]
    acceptance.accept(after, incoming, there.online.public, now(), asked.append)
    assert asked == [POLICY]


def unsigned(there: Repositories) -> Bundle:
    return only(policies=seal(with_policy(there).roles["policies"].signed, []))


def signed_by_a_stranger(there: Repositories) -> Bundle:
    return only(policies=seal(with_policy(there).roles["policies"].signed, [keys.generate()]))


def signed_by_the_server(there: Repositories) -> Bundle:
    return only(policies=seal(with_policy(there).roles["policies"].signed, [there.online.image]))


def signed_by_another_role(there: Repositories) -> Bundle:
    return only(policies=seal(with_policy(there).roles["policies"].signed, there.offline.roles["models"]))


def changed_after_signing(there: Repositories) -> Bundle:
    bundle = with_policy(there)
    bundle.roles["policies"].signed.version += 1
    return bundle


def of_another_kind(there: Repositories) -> Bundle:
    return policies(there, Targets(2, SPEC, now() + timedelta(days=1), {MODEL.path: target_file(MODEL)}))


def under_a_false_path(there: Repositories) -> Bundle:
    file = target_file(POLICY)
    path = "policies/../../etc/passwd"
    file.path = path
    return policies(there, Targets(2, SPEC, now() + timedelta(days=1), {path: file}))


def expired(there: Repositories) -> Bundle:
    return policies(there, Targets(2, SPEC, now() - timedelta(days=1)))


def delegating_further(there: Repositories) -> Bundle:
    delegations = there.bundle.roles["targets"].signed.delegations
    return policies(there, Targets(2, SPEC, now() + timedelta(days=1), {}, delegations))


def of_an_unknown_role(there: Repositories) -> Bundle:
    return Bundle((), (), {"../root": there.bundle.roles["models"]})


def delegates(there: Repositories) -> dict[str, list[Key]]:
    """The keys that the targets delegate to, by role."""
    return {role: [signer.public_key for signer in there.offline.roles[role]] for role in ROLES}


def with_wider_paths(there: Repositories) -> Bundle:
    top = image.delegating(delegates(there), 2, now())
    assert top.delegations is not None
    assert top.delegations.roles is not None
    role = top.delegations.roles["models"]
    top.delegations.roles["models"] = DelegatedRole("models", role.keyids, 1, True, ["*/*/*"])
    return only(targets=seal(top, there.offline.roles["targets"]))


def vouching_at_the_top(there: Repositories) -> Bundle:
    top = image.delegating(delegates(there), 2, now())
    top.targets = {POLICY.path: target_file(POLICY)}
    return only(targets=seal(top, there.offline.roles["targets"]))


def leaving_a_role_unsigned(there: Repositories) -> Bundle:
    """New delegation keys without the delegated role signed anew would shut every device out."""
    offered = {role: [keys.generate().public_key] for role in ROLES}
    return only(targets=seal(image.delegating(offered, 2, now()), there.offline.roles["targets"]))


def with_one_root_key(there: Repositories) -> Bundle:
    again = ceremony.hold(there.offline, there.online.public, now(), there.bundle)
    root = seal(again.image_roots[-1].signed, there.offline.root[:1])
    return Bundle((*again.image_roots[:-1], root), again.director_roots, again.roles)


def for_another_server(there: Repositories) -> Bundle:
    return ceremony.hold(there.offline, ceremony.OnlineKeys.generate().public, now(), there.bundle)


@pytest.mark.parametrize(
    "make",
    [
        unsigned, signed_by_a_stranger, signed_by_the_server, signed_by_another_role, changed_after_signing,
        of_another_kind, under_a_false_path, expired, delegating_further, of_an_unknown_role,
        with_wider_paths, vouching_at_the_top, leaving_a_role_unsigned, with_one_root_key, for_another_server,
    ],
)  # fmt: skip
def test_what_is_not_as_it_has_to_be_is_refused(
    there: Repositories, make: Callable[[Repositories], Bundle]
) -> None:
    with pytest.raises(MetadataError):
        accept(there, make(there))


def test_versions_only_grow(there: Repositories) -> None:
    after = accept(there, with_policy(there))
    other = policies(there, Targets(2, SPEC, now() + timedelta(days=1)))
    for stale in (only(policies=there.bundle.roles["policies"]), other):
        with pytest.raises(StaleError):
            accept(there, stale, after)


def test_a_published_path_never_changes_its_content(there: Repositories) -> None:
    after = accept(there, with_policy(there))
    changed = Target(POLICY.path, POLICY.length, "0" * 64, POLICY.description)
    files = {POLICY.path: target_file(changed)}
    with pytest.raises(StaleError, match="other content"):
        accept(there, policies(there, Targets(3, SPEC, now() + timedelta(days=1), files)), after)


def test_bytes_that_are_missing_stop_a_publication(there: Repositories) -> None:
    def missing(target: Target) -> None:
        raise SigningError(target.path)

    with pytest.raises(SigningError, match=POLICY.path):
        acceptance.accept(there.bundle, with_policy(there), there.online.public, now(), missing)


def test_a_chain_of_roots_has_no_gaps_and_no_second_truth(there: Repositories) -> None:
    second = ceremony.hold(there.offline, there.online.public, now(), there.bundle)
    third = ceremony.hold(there.offline, there.online.public, now(), second)
    gap = Bundle(third.image_roots[2:], third.director_roots, third.roles)
    with pytest.raises(StaleError, match="leaves out version 2"):
        accept(there, gap)
    after = accept(there, third)
    assert [root.signed.version for root in after.image_roots] == [1, 2, 3]
    stranger = ceremony.hold(ceremony.OfflineKeys.generate(), there.online.public, now())
    with pytest.raises(StaleError, match="another one"):
        accept(there, stranger)


def test_a_first_publication_needs_a_ceremony(there: Repositories) -> None:
    with pytest.raises(MetadataError, match="hold a ceremony first"):
        acceptance.accept(None, with_policy(there), there.online.public, now(), nothing_missing)


def test_a_stolen_key_of_models_is_replaced_and_the_server_follows(there: Repositories) -> None:
    roles = dict(there.offline.roles) | {"models": (keys.generate(),)}
    offline = ceremony.OfflineKeys(there.offline.root, roles)
    again = ceremony.hold(offline, there.online.public, now(), there.bundle)
    after = accept(there, again)
    thief = image.add(after.roles["models"], MODEL, there.offline.roles["models"], now())
    with pytest.raises(MetadataError):
        accept(there, only(models=thief), after)
    owner = image.add(after.roles["models"], MODEL, roles["models"], now())
    assert acceptance.targets_of(accept(there, only(models=owner), after)) == [MODEL]


def test_a_release_is_not_published_again_by_the_other_role_of_policies(there: Repositories) -> None:
    telling, acting = policy(1).target, policy(1, actuates=True).target
    first = image.add(there.roles["policies"], telling, there.offline.roles["policies"], now())
    second = image.add(there.roles["actuation"], acting, there.offline.roles["actuation"], now())
    accept(there, only(actuation=second))
    with pytest.raises(StaleError, match=r"actuation/leak/1.toml has the name and the release of policies/"):
        accept(there, only(policies=first, actuation=second))


@pytest.mark.attack
def test_targets_that_let_one_person_act_are_refused(there: Repositories) -> None:
    top = image.delegating(delegates(there), 2, now())
    assert top.delegations is not None
    assert top.delegations.roles is not None
    top.delegations.roles["actuation"].threshold = 1
    with pytest.raises(MetadataError, match="actuation takes 2 signatures at least; the metadata asks for 1"):
        accept(there, only(targets=seal(top, there.offline.roles["targets"])))


def forged_list(there: Repositories) -> Bundle:
    """A thief of the server adds a model to the list, and asks for a ceremony."""
    forged = image.add(there.bundle.roles["models"], MODEL, [there.online.image], now())
    return Bundle(
        there.bundle.image_roots, there.bundle.director_roots, there.bundle.roles | {"models": forged}
    )


def forged_delegation(there: Repositories) -> Bundle:
    thief = keys.generate()
    offered = {role: [thief.public_key] for role in ROLES}
    top = seal(image.delegating(offered, 2, now()), [thief])
    models = image.add(there.bundle.roles["models"], MODEL, [thief], now())
    others = {role: seal(image.renewed(models.signed, now()), [thief]) for role in ROLES}
    roles = {"targets": top} | others | {"models": models}
    return Bundle(there.bundle.image_roots, there.bundle.director_roots, roles)


def forged_root(there: Repositories) -> Bundle:
    """Everything fits together, but goes back to the thief's own root keys and to one of ours."""
    offline = ceremony.OfflineKeys(
        (*ceremony.OfflineKeys.generate().root[:2], there.offline.root[0]), there.offline.roles
    )
    return ceremony.hold(offline, there.online.public, now())


def left_out(there: Repositories) -> Bundle:
    return Bundle(there.bundle.image_roots, (), there.bundle.roles)


@pytest.mark.parametrize("make", [forged_list, forged_delegation, forged_root, left_out])
def test_a_ceremony_signs_nothing_that_a_server_has_made_up(
    there: Repositories, make: Callable[[Repositories], Bundle]
) -> None:
    with pytest.raises(MetadataError):
        ceremony.hold(there.offline, there.online.public, now(), make(there))


def test_another_server_s_keys_are_vouched_for_by_the_next_ceremony(there: Repositories) -> None:
    fresh = ceremony.OnlineKeys.generate()
    again = ceremony.hold(there.offline, fresh.public, now(), there.bundle)
    after = acceptance.accept(there.bundle, again, fresh.public, now(), nothing_missing)
    acceptance.require_online(after.image_roots[-1], after.director_roots[-1], fresh.public)
