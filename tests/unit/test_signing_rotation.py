"""Every key is replaced without a device being touched: the new one is followed, the stolen one refused.

The device is the one that the agent has: the pinned roots of its first day, its own folder, and the
verification that every look goes through.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Targets

from edge_agent.clock import BUILD_MS
from edge_agent.errors import UpdateRefused
from edge_agent.updates.marks import Marks
from edge_agent.updates.source import Bundle, closing
from edge_agent.updates.spoken import Ask
from edge_agent.updates.trust import Repositories as Verified
from fleet_protocol.targets import ROLES, Description, ImageFormat, Kind, Requirements, Target, path_of
from fleet_signing import ceremony, drafts, image, keys
from fleet_signing.artifacts import Artifact
from fleet_signing.ceremony import OfflineKeys, OnlineKeys
from fleet_signing.metadata import encode, now, seal
from tests.support.repositories import Repositories
from tests.support.updating import write_bundle

DEVICE = "gw-7"


def artifact(role: str, release: int) -> Artifact:
    """Something that ``role`` signs; its bytes are never opened here."""
    kind = ROLES[role]
    described = Description(
        kind=kind, name="thing", version="1", release=release, actuates=role == "actuation",
        requires=Requirements(image=ImageFormat.RAUC, profiles=("raspberry-pi-5-rauc",))
        if kind is Kind.OS
        else Requirements(),
    )  # fmt: skip
    content = f"{role} {release}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    return Artifact(Target(path_of(described), len(content), sha256, described), content)


class Field:
    """A fleet's repositories, and a device that only ever sees what they serve."""

    def __init__(self, folder: Path) -> None:
        self.there = Repositories(now())
        self._folder = folder
        self._marks = Marks()
        (folder / "image-root.json").write_bytes(self.there.image_root)
        (folder / "director-root.json").write_bytes(self.there.director_root)

    def publish(self, role: str, release: int, *signers: Signer) -> str:
        """Publish and order an artifact of ``role``; what the device makes of it."""
        target = self.there.publish(artifact(role, release), *signers)
        self.there.direct(DEVICE, target)
        return self.look()

    def look(self) -> str:
        """``accepted``, or as what it is refused."""
        ask = Ask(
            device=DEVICE,
            folder=str(self._folder / "updates"),
            image_root=str(self._folder / "image-root.json"),
            director_root=str(self._folder / "director-root.json"),
            now_ms=max(BUILD_MS, int(now().timestamp() * 1000)),
        )
        stick = write_bundle(self._folder / "stick.tar", self.there.files)
        with closing(Bundle(stick)) as source:
            try:
                self._marks, word = Verified(ask, source).word(self._marks)
            except UpdateRefused as error:
                return f"{error.refusal}: {error.scope}"
        (ordered,) = [*word.published, *word.refused]
        return str(word.refused[ordered].refusal) if word.refused else "accepted"


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


def replaced(offline: OfflineKeys, role: str, number: int = 0) -> OfflineKeys:
    """``offline`` with one key of ``role`` replaced by a new one."""
    signers = list(offline.by_role[role])
    signers[number] = keys.generate()
    by_role = {**offline.by_role, role: tuple(signers)}
    return OfflineKeys(by_role.pop("root"), by_role)


@pytest.mark.attack
@pytest.mark.parametrize("role", ROLES)
def test_a_stolen_publishers_key_is_replaced(field: Field, role: str) -> None:
    assert field.publish(role, 1) == "accepted"
    stolen, *others = field.there.offline.roles[role]
    field.there.hold(replaced(field.there.offline, role))
    assert field.look() == "accepted"  # what was published before stays published
    assert field.publish(role, 2) == "accepted"
    assert field.publish(role, 3, stolen, *others) == "forged"


@pytest.mark.attack
def test_both_keys_of_policies_that_act_are_replaced_and_one_is_never_enough(field: Field) -> None:
    both = field.there.offline.roles["actuation"]
    assert field.publish("actuation", 1) == "accepted"
    offline = replaced(replaced(field.there.offline, "actuation", 0), "actuation", 1)
    field.there.hold(offline)
    assert field.publish("actuation", 2) == "accepted"
    honest = dict(field.there.roles)
    assert field.publish("actuation", 3, *both) == "forged"
    field.there.roles = honest
    assert field.publish("actuation", 3, offline.roles["actuation"][1]) == "forged"


def delegating_to(thief: Signer, field: Field, signers: Sequence[Signer]) -> None:
    """Serve targets that give every role to ``thief``, and what the thief publishes under them."""
    version = field.there.roles["targets"].signed.version + 1
    delegated = image.delegating({role: [thief.public_key] for role in ROLES}, version, now())
    assert delegated.delegations is not None
    assert delegated.delegations.roles is not None
    delegated.delegations.roles["actuation"].threshold = 1
    field.there.roles["targets"] = seal(delegated, signers)
    for role in ROLES:
        field.there.roles[role] = seal(image.renewed(field.there.roles[role].signed, now()), [thief])


@pytest.mark.attack
@pytest.mark.parametrize("number", range(3))
def test_a_stolen_targets_key_is_replaced(field: Field, number: int) -> None:
    assert field.publish("models", 1) == "accepted"
    stolen = field.there.offline.roles["targets"][number]
    other = field.there.offline.roles["targets"][number - 1]
    field.there.hold(replaced(field.there.offline, "targets", number))
    assert field.publish("models", 2) == "accepted"
    thief = keys.generate()
    delegating_to(thief, field, [stolen, other])
    assert field.publish("models", 3, thief) == "forged: image"


def with_root(there: Repositories, signers: Sequence[Signer]) -> Metadata[Root]:
    """Serve the root after the last one, with the keys of now, signed by ``signers``."""
    public = {role: [each.public_key for each in held] for role, held in there.offline.by_role.items()}
    drawn = ceremony.draw_up(public, there.online.public, there.at, there.current, ())
    root = seal(drawn.image_roots[-1].signed, signers)
    there.files[f"image/metadata/{root.signed.version}.root.json"] = encode(root)
    return root


@pytest.mark.attack
@pytest.mark.parametrize("number", range(3))
def test_a_stolen_root_key_is_replaced(field: Field, number: int) -> None:
    assert field.publish("models", 1) == "accepted"
    stolen = field.there.offline.root[number]
    field.there.hold(replaced(field.there.offline, "root", number))
    assert field.publish("models", 2) == "accepted"
    new, other = field.there.offline.root[number], field.there.offline.root[number - 1]
    with_root(field.there, [stolen, other])
    assert field.look() == "forged: image"
    with_root(field.there, [new, other])
    assert field.look() == "accepted"


@pytest.mark.attack
def test_all_root_keys_are_replaced_with_the_signatures_of_the_old_and_of_the_new(field: Field) -> None:
    there = field.there
    assert field.publish("models", 1) == "accepted"
    old = there.offline.root
    new = OfflineKeys(OfflineKeys.generate().root, there.offline.roles)
    offered = {f"root-{number}": each.public_key for number, each in enumerate(new.root, start=1)}
    draft = drafts.draw_up(offered, there.online.public, there.at, there.current)
    for signer in (*old[:2], *there.offline.roles["targets"][:2]):
        draft = drafts.sign(draft, signer)
    assert [lack.signatures for lack in drafts.lacking(draft)] == [2, 2]  # of the new keys, in both roots
    for signer in new.root[1:]:
        draft = drafts.sign(draft, signer, is_new=True)
    assert drafts.lacking(draft) == []
    there.take(draft.bundle)
    there.offline = new
    assert field.publish("models", 2) == "accepted"
    with_root(there, old)
    assert field.look() == "forged: image"


@pytest.mark.attack
def test_a_stolen_servers_keys_are_replaced(field: Field) -> None:
    assert field.publish("models", 1) == "accepted"
    stolen = field.there.online
    field.there.hold(field.there.offline, OnlineKeys.generate())
    assert field.publish("models", 2) == "accepted"
    own = field.there.online
    field.there.direct(DEVICE, signer=stolen.director)
    assert field.look() == "forged: director"
    field.there.direct(DEVICE, field.there.publish(artifact("models", 3)))
    assert field.look() == "accepted"
    field.there.online = OnlineKeys(stolen.image, own.director)
    assert field.publish("models", 4) == "forged: image"


@pytest.mark.attack
def test_a_policy_that_acts_is_not_found_under_the_role_of_those_that_tell(field: Field) -> None:
    """The one key of policies signs a description that acts, under the path of its role."""
    acting = artifact("actuation", 1)
    sneaked = Target(
        acting.target.path.replace("actuation/", "policies/"),
        acting.target.length,
        acting.target.sha256,
        acting.target.description,
    )
    there = field.there
    there.roles["policies"] = image.add(
        there.roles["policies"], sneaked, there.offline.roles["policies"], there.at
    )
    there.release()
    there.direct(DEVICE, sneaked)
    assert field.look() == "malformed"


def test_the_new_root_asks_for_two_of_three_again(field: Field) -> None:
    field.there.hold(replaced(field.there.offline, "targets"))
    root = field.there.bundle.image_roots[-1].signed
    assert {role: root.roles[role].threshold for role in (Root.type, Targets.type)} == {
        "root": 2,
        "targets": 2,
    }
    assert ROLES["actuation"] == Kind.POLICY
