"""Artifacts over bad lines: resumed where they were cut, and never taken for what they are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import UpdateRefused, UpdateUnreachable
from edge_agent.link.https import tls_context
from edge_agent.updates import transfer
from edge_agent.updates.download import Come, Downloader
from edge_agent.updates.source import Https, closing
from fleet_protocol.targets import Refusal, Target
from fleet_signing.artifacts import Artifact
from tests.support.authority import TestAuthority
from tests.support.update_server import UpdateServer
from tests.support.updating import model_artifact

ARTIFACT: Artifact = model_artifact(1)
TARGET: Target = ARTIFACT.target
PATH = f"image/targets/models/autoencoder/{TARGET.sha256}.1.tar"


@pytest.fixture
def server(authority: TestAuthority) -> Iterator[UpdateServer]:
    with UpdateServer(authority.issue("updates"), {PATH: ARTIFACT.content}) as server:
        server.cut_from = 100
        yield server


@pytest.fixture
def downloader(tmp_path: Path, server: UpdateServer, authority: TestAuthority) -> Iterator[Downloader]:
    with closing(Https(server.url, tls_context(authority.ca, check_dates=True))) as source:
        yield Downloader(tmp_path, source)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_WAIT_S", 0.001)


def test_a_cut_line_costs_only_what_was_under_way(downloader: Downloader, server: UpdateServer) -> None:
    server.cuts.extend([9_000, 8_000, 1])
    told: list[Come] = []
    file = downloader.fetch(TARGET, told.append)
    assert file.read_bytes() == ARTIFACT.content
    assert server.ranges(".tar") == ["", "bytes=9000-", "bytes=17000-", "bytes=17001-"]
    assert told[-1] == Come(TARGET.length, TARGET.length)
    assert [each.name for each in file.parent.iterdir()] == [TARGET.sha256]


def test_what_came_before_a_restart_is_not_fetched_again(
    downloader: Downloader, server: UpdateServer, tmp_path: Path
) -> None:
    server.cuts.extend([9_000] + [0] * transfer.ATTEMPTS)
    with pytest.raises(UpdateUnreachable):
        downloader.fetch(TARGET, lambda _done: None)
    assert (tmp_path / f"{TARGET.sha256}.part").stat().st_size == 9_000
    server.cuts.clear()
    server.asked.clear()
    downloader.fetch(TARGET, lambda _done: None)
    assert server.ranges(".tar") == ["bytes=9000-"]


def test_a_whole_file_is_not_fetched_again(downloader: Downloader, server: UpdateServer) -> None:
    first = downloader.fetch(TARGET, lambda _done: None)
    server.asked.clear()
    assert downloader.fetch(TARGET, lambda _done: None) == first
    assert not server.asked


def test_attempts_that_bring_nothing_come_to_an_end(downloader: Downloader, server: UpdateServer) -> None:
    server.cuts.extend([0] * 50)
    with pytest.raises(UpdateUnreachable):
        downloader.fetch(TARGET, lambda _done: None)
    assert len(server.asked) == transfer.ATTEMPTS


@pytest.mark.parametrize("rest", [b"", bytes(5000)], ids=["lost", "zeros"])
def test_a_part_that_a_power_cut_spoiled_is_no_attack(
    downloader: Downloader, server: UpdateServer, tmp_path: Path, rest: bytes
) -> None:
    server.cuts.extend([9_000] + [0] * transfer.ATTEMPTS)
    with pytest.raises(UpdateUnreachable):
        downloader.fetch(TARGET, lambda _done: None)
    server.cuts.clear()
    (tmp_path / f"{TARGET.sha256}.part").write_bytes(rest or b"x" * 9_000)
    assert downloader.fetch(TARGET, lambda _done: None).read_bytes() == ARTIFACT.content


def test_a_file_that_changed_on_the_server_is_begun_anew(
    downloader: Downloader, server: UpdateServer, tmp_path: Path
) -> None:
    other = bytes(TARGET.length)
    server.files = {PATH: other}
    server.cuts.extend([9_000] + [0] * transfer.ATTEMPTS)
    with pytest.raises(UpdateUnreachable):
        downloader.fetch(TARGET, lambda _done: None)
    server.cuts.clear()
    server.files = {PATH: ARTIFACT.content}
    server.asked.clear()
    assert downloader.fetch(TARGET, lambda _done: None).read_bytes() == ARTIFACT.content
    assert server.ranges(".tar") == ["bytes=9000-"], "the server's answer to If-Range began at 0"


@pytest.mark.attack
@pytest.mark.parametrize("honest", [True, False], ids=["told", "not told"])
def test_more_bytes_than_were_signed(downloader: Downloader, server: UpdateServer, honest: bool) -> None:
    server.longer, server.honest_length = 10_000_000, honest
    with pytest.raises(UpdateRefused) as caught:
        downloader.fetch(TARGET, lambda _done: None)
    assert caught.value.refusal is Refusal.ENDLESS


def test_fewer_bytes_than_were_signed(downloader: Downloader, server: UpdateServer) -> None:
    server.files = {PATH: ARTIFACT.content[:-512]}
    with pytest.raises(UpdateRefused) as caught:
        downloader.fetch(TARGET, lambda _done: None)
    assert caught.value.refusal is Refusal.TAMPERED


@pytest.mark.attack
def test_other_bytes_than_were_signed(downloader: Downloader, server: UpdateServer, tmp_path: Path) -> None:
    changed = bytearray(ARTIFACT.content)
    changed[5000] ^= 1
    server.files = {PATH: bytes(changed)}
    with pytest.raises(UpdateRefused) as caught:
        downloader.fetch(TARGET, lambda _done: None)
    assert caught.value.refusal is Refusal.TAMPERED
    assert len(server.asked) == 1
    assert not (tmp_path / TARGET.sha256).exists()


def test_an_artifact_that_is_not_there(downloader: Downloader, server: UpdateServer) -> None:
    server.files = {}
    with pytest.raises(UpdateUnreachable, match="404"):
        downloader.fetch(TARGET, lambda _done: None)
    assert len(server.asked) == 1
