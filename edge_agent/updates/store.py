"""The artifacts on this device, by content: ``artifacts/<sha256>/`` holds one, unpacked and whole.

A folder of that name is complete: it is filled under another name, flushed, and then renamed. Its
files are checked again each time they are read, by the manifest's digests or by its own name.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent import durable
from edge_agent.errors import UpdateBroken, UpdateRefused
from edge_agent.updates.ledger import DOWNLOADS
from edge_agent.updates.unpack import unpack
from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Manifest
from fleet_protocol.targets import Description, Kind, Refusal, Target
from fleet_protocol.texts import _

if TYPE_CHECKING:
    # CEL comes with it; an agent without a model does not need that.
    from fleet_protocol.policy import Policy

POLICY: Final = "policy.toml"
BUILD: Final = "agent.tar"
IMAGE: Final = "image"
_WHOLE: Final = {Kind.AGENT: BUILD, Kind.OS: IMAGE}
"""What is kept as the one file that it came as."""

DRAFT: Final = ".draft-"


class Store:
    """The folder ``artifacts``, and ``downloads`` beside it, from which it is filled."""

    def __init__(self, folder: Path) -> None:
        self._artifacts: Final = folder / "artifacts"
        self._downloads: Final = folder / DOWNLOADS

    def place(self, sha256: str) -> Path:
        """The folder of a model, or of a policy's one file."""
        return self._artifacts / sha256

    def policy(self, sha256: str) -> Path:
        """The file of a policy."""
        return self._artifacts / sha256 / POLICY

    def build(self, sha256: str) -> Path:
        """The file of a build of the agent's software, of which its slot is made."""
        return self._artifacts / sha256 / BUILD

    def image(self, sha256: str) -> Path:
        """The file of an operating system's image."""
        return self._artifacts / sha256 / IMAGE

    def has(self, sha256: str) -> bool:
        """Whether it is here."""
        return self.place(sha256).is_dir()

    def downloaded(self, sha256: str) -> Path:
        """Where the look leaves what it fetched."""
        return self._downloads / sha256

    def add(self, target: Target) -> None:
        """Take what was downloaded for ``target``; if it is here already, nothing.

        Raises:
            UpdateRefused: it is not in the form of its kind.
            UpdateBroken: the download is gone or changed, there is no room, or it cannot be written.
        """
        if self.has(target.sha256):
            return
        draft = self._artifacts / f"{DRAFT}{target.sha256}"
        try:
            durable.make_folder(self._artifacts)
            durable.remove(draft)
            self._fill(target, draft)
            durable.flush(draft)
            durable.rename(draft, self.place(target.sha256))
        except OSError as error:
            raise UpdateBroken(
                _("{path} cannot be stored: {reason}").format(path=target.path, reason=error.strerror)
            ) from error

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove every artifact and every download but the ``wanted`` ones.

        Raises:
            UpdateBroken: something cannot be removed.
        """
        self._remove(wanted, self._artifacts, self._downloads)

    def tidy(self, wanted: Collection[str]) -> None:
        """Remove every download but the ``wanted`` ones; raises as :meth:`sweep`."""
        self._remove(wanted, self._downloads)

    def _remove(self, wanted: Collection[str], *folders: Path) -> None:
        try:
            for folder in folders:
                for path in folder.iterdir() if folder.is_dir() else ():
                    if path.name.split(".")[0] not in wanted:
                        durable.remove(path)
        except OSError as error:
            raise UpdateBroken(
                _("old artifacts cannot be removed: {reason}").format(reason=error.strerror)
            ) from error

    def _fill(self, target: Target, draft: Path) -> None:
        source = self.downloaded(target.sha256)
        if not source.is_file() or _digest(source) != target.sha256:
            source.unlink(missing_ok=True)
            raise UpdateBroken(
                _("{path} has to be fetched again: what was downloaded is gone or changed").format(
                    path=target.path
                )
            )
        if target.description.kind is Kind.MODEL:
            _require_described(target, unpack(source, draft))
            return
        if target.description.kind in _WHOLE:
            draft.mkdir()
            # A second name, not a second copy.
            (draft / _WHOLE[target.description.kind]).hardlink_to(source)
            return
        content = source.read_bytes()
        policy = _parsed(target, content)
        _require_described(target, policy)
        _require_acts_as_signed(target, policy)
        draft.mkdir()
        durable.fill(draft / POLICY, content)


def read_policy(file: Path, sha256: str) -> "Policy":
    """The policy in ``file``, whose bytes must still be those of ``sha256``.

    Raises:
        PolicyError: they are not, or do not parse.
        OSError: it cannot be read.
    """
    from fleet_protocol.policy import parse

    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PolicyError(_("{file} has changed since it was installed").format(file=file))
    return parse(content)


def _parsed(target: Target, content: bytes) -> "Policy":
    from fleet_protocol.policy import parse

    try:
        return parse(content)
    except PolicyError as error:
        raise UpdateRefused(Refusal.MALFORMED, target.path, str(error)) from None


def _require_described(target: Target, found: "Manifest | Policy") -> None:
    """What was signed for is what the artifact says of itself."""
    signed: Description = target.description
    if (found.name, found.version, found.release) != (signed.name, signed.version, signed.release):
        raise UpdateRefused(
            Refusal.MALFORMED,
            target.path,
            _("it calls itself {name} {version}, release {release}").format(
                name=found.name, version=found.version, release=found.release
            ),
        )


def _require_acts_as_signed(target: Target, policy: "Policy") -> None:
    """A policy that acts must not come by with the signatures that suffice for one that tells."""
    if policy.actuates != target.description.actuates:
        raise UpdateRefused(
            Refusal.DISAGREEMENT,
            target.path,
            _("the policy says that it acts, and was signed as one that only tells")
            if policy.actuates
            else _("the policy only tells, and was signed as one that acts"),
        )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
