"""The agent's verifier behind the command line that the public tuf-conformance suite drives.

What runs is what runs on a device: :class:`edge_agent.updates.trust.Repository` with the pinned root, the
high-water marks, the downloader. Left out are what the suite's repositories do not have: a director, our
descriptions of artifacts, and the build time as floor of the clock, because its recorded repositories
are older than any build of ours. ``tests/conformance/README.md`` says how to run it.
"""

import argparse
import filecmp
import http.client
import logging
import shutil
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from tuf.api.metadata import TargetFile

from edge_agent.errors import UpdateError, UpdateRefused
from edge_agent.link.https import CHUNK
from edge_agent.updates import marks
from edge_agent.updates.download import Downloader
from edge_agent.updates.source import Https, Part
from edge_agent.updates.trust import IMAGE, Repository, told_in_our_words
from fleet_protocol.targets import Description, Kind, Refusal, Target

PINNED = "pinned-root"
MARKS = "marks"
DOWNLOADS = "downloads"


class Plain(Https):
    """The production source without TLS: the suite's server speaks plain HTTP on the loopback interface."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ssl.create_default_context())
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)


class Targets:
    """A source whose artifacts lie where the suite has them: with the digest before the name, or without."""

    def __init__(self, url: str, consistent: bool) -> None:
        self.plain = Plain(url)
        self.consistent = consistent

    def part(self, path: str, start: int, etag: str, piece: int = CHUNK) -> Part:
        folder, _slash, name = path.removeprefix("image/targets/").rpartition("/")
        digest, _dot, plain = name.partition(".")
        name = f"{digest}.{plain}" if self.consistent else plain
        return self.plain.part(f"{folder}/{name}".lstrip("/"), start, etag, piece)


def refreshed(folder: Path, url: str) -> Repository:
    """The repository at ``url``, verified, after its marks were compared and written down."""
    base, _slash, last = url.rstrip("/").rpartition("/")
    before = marks.load(folder / MARKS)
    now_ms = max(time.time_ns() // 1_000_000, before.verified_ms)
    with told_in_our_words(IMAGE):
        repository = Repository(folder, last, Plain(base), (folder / PINNED).read_bytes(), now_ms)
        repository.refresh()
    after = before.with_versions({IMAGE: repository.mark()}, now_ms)
    if after != before:
        marks.save(folder / MARKS, after)
    return repository


def fetch(repository: Repository, name: str, url: str, work: Path, folder: Path) -> None:
    """Download one artifact as the agent does, then lay it under its own name as the suite wants it."""
    with told_in_our_words(name):
        found = repository.get_targetinfo(name)
    if found is None:
        raise UpdateRefused(Refusal.NOT_PUBLISHED, name, "it is not there")
    source = Targets(url, repository.is_consistent)
    whole = Downloader(work, source).fetch(_target(found), lambda _done: None)
    place = folder / quote(name, safe="")
    if not (place.exists() and filecmp.cmp(whole, place, shallow=False)):
        shutil.copyfile(whole, place)


def _target(found: TargetFile) -> Target:
    if "sha256" not in found.hashes:
        raise UpdateRefused(Refusal.MALFORMED, found.path, "an artifact is known by its SHA-256")
    description = Description(kind=Kind.MODEL, name="any", version="any", release=1)
    return Target(found.path, found.length, found.hashes["sha256"], description)


def main() -> int:
    options = _options()
    logging.basicConfig(level=logging.DEBUG)
    folder = options.metadata_dir
    try:
        match options.command:
            case "init":
                shutil.copyfile(options.root, folder / PINNED)
                shutil.copyfile(options.root, folder / "root.json")
            case "refresh":
                refreshed(folder, options.metadata_url)
            case "download":
                repository = refreshed(folder, options.metadata_url)
                for name in options.target_name:
                    fetch(repository, name, options.target_base_url, folder / DOWNLOADS, options.target_dir)
    except UpdateError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
