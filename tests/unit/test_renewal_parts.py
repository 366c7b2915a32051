"""When a certificate is renewed, what a nonce is worth, and that a cut never costs a device its identity."""

import datetime as dt
import itertools
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import Broker
from edge_agent.errors import IdentityError
from edge_agent.identity.identity import load_identity
from edge_agent.identity.renewal_time import jitter_of, longest_wait_s, renewal_ms, wait_ms
from edge_agent.identity.renewing import Renewed, both_of, put_in_place
from fleet_server.authority.authority import Authority, make_authority, open_authority
from fleet_server.authority.issuing import CLIENT, make_leaf
from fleet_server.authority.key_files import key_pem
from fleet_server.callers import Paces, Rate, network_of
from fleet_server.nonces import LIFE_S, Nonces
from tests.support.power import Disk, PowerCut

TIMES = st.integers(0, 4_102_444_800_000)
LIVES = st.integers(60_000, 825 * 86_400_000)
JITTERS = st.floats(0.0, 1.0, exclude_max=True)


@given(TIMES, LIVES, JITTERS)
def test_renewal_comes_in_the_last_third_and_never_at_the_end(begin: int, life: int, jitter: float) -> None:
    due = renewal_ms(begin, begin + life, jitter)
    assert begin + life * 2 // 3 - 1 <= due < begin + life * 3 // 4 + 1


@given(TIMES, LIVES, JITTERS, TIMES)
def test_it_waits_until_then_and_not_longer(begin: int, life: int, jitter: float, now: int) -> None:
    waited = wait_ms(begin, begin + life, now, jitter)
    assert waited >= 0
    assert wait_ms(begin, begin + life, now + waited, jitter) == 0
    assert waited == 0 or wait_ms(begin, begin + life, now + waited - 1, jitter) == 1


@given(TIMES, LIVES)
def test_the_last_third_has_room_for_many_attempts(begin: int, life: int) -> None:
    longest = longest_wait_s(begin, begin + life)
    assert 0 < longest <= 3600
    assert (life / 1000 / 4) / longest >= 24


@given(st.integers(0, 2**159 - 1))
def test_a_certificate_s_jitter_is_its_own_for_ever(serial: int) -> None:
    assert 0.0 <= jitter_of(f"{serial:x}") < 1.0
    assert jitter_of(f"{serial:x}") == jitter_of(f"{serial:x}")


def test_a_fleet_of_one_morning_is_spread() -> None:
    numbers = [jitter_of(f"{(n * 2654435761 * 40503) % 2**64:x}") for n in range(1, 2000)]
    parts = [sum(n / 10 <= each < (n + 1) / 10 for each in numbers) for n in range(10)]
    assert min(parts) > 100


def test_a_nonce_counts_once_and_for_a_minute() -> None:
    nonces = Nonces()
    first, second, late = (nonces.make(100.0) for _each in range(3))
    assert first != second
    assert nonces.is_fresh(first, 100.0 + LIFE_S)
    assert nonces.use(first, 101.0)
    assert not nonces.use(first, 101.0)
    assert nonces.use(second, 102.0)
    assert not nonces.use(late, 100.1 + LIFE_S)
    assert not nonces.use(nonces.make(300.0), 299.0)


@pytest.mark.parametrize("nonce", ["", "x", "A" * 54, "é" * 54, "\0", "=" * 54, " " * 54])
def test_what_is_no_nonce_of_ours_counts_never(nonce: str) -> None:
    assert not Nonces().use(nonce, 100.0)
    assert not Nonces().use(Nonces().make(100.0), 100.0)


def test_nonces_keep_a_bounded_memory_of_those_that_were_used() -> None:
    nonces = Nonces(most_used=3)
    assert [nonces.use(nonces.make(0.0), 0.0) for _each in range(4)] == [True, True, True, False]
    assert nonces.use(nonces.make(LIFE_S + 1), LIFE_S + 1), "those before have ended"


def test_a_source_is_bounded_and_so_is_the_memory_of_sources() -> None:
    sources = Paces(Rate(per_s=1.0, burst=2.0), most=2)
    assert [sources.allows("a", 0.0) for _each in range(3)] == [True, True, False]
    assert sources.allows("b", 0.0)
    assert sources.allows("a", 1.0)
    for name in ("c", "d", "e"):
        assert sources.allows(name, 1.0)
    assert len(sources._buckets) == 2


def test_an_owner_of_a_network_of_ipv6_is_one_source() -> None:
    sources = Paces(Rate(per_s=1.0, burst=1.0))
    assert sources.allows(network_of("2001:db8:1:2::1"), 0.0)
    assert not sources.allows(network_of("2001:db8:1:2:ffff::9"), 0.0)
    assert sources.allows(network_of("2001:db8:1:3::1"), 0.0)
    assert sources.allows(network_of("2001:db8:1:2::1"), 1.0), "a second later"


class Device:
    """A device's files in ``folder``, its key elsewhere; certificates from whichever authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "identity"
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        (folder / "key.pem").touch(mode=0o600)
        (folder / "key.pem").write_bytes(key_pem(self.key))
        ca, certificate = self.folder / "ca.pem", self.folder / "cert.pem"
        self.broker = Broker(host="localhost", ca=ca, certificate=certificate, key=folder / "key.pem")

    def issued(self, authority: Authority, roots: bytes, name: str = "gw-1") -> Renewed:
        now, lasts = dt.datetime.now(dt.UTC), dt.timedelta(days=30)
        leaf = make_leaf(authority.device_issuer, name, self.key.public_key(), CLIENT, lasts, now)
        return Renewed(authority.chain(leaf).decode(), roots.decode())

    def has(self, renewed: Renewed) -> None:
        self.broker.ca.write_text(renewed.ca_pem)
        self.broker.certificate.write_text(renewed.certificate_pem)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """An old one and a new one."""
    folder = tmp_path_factory.mktemp("authorities")
    for name in ("old", "new"):
        make_authority(folder / name)
    return tuple(open_authority(folder / name, may_make=False) for name in ("old", "new"))  # type: ignore[return-value]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize("keeps_old_root", [True, False])
def test_a_cut_at_any_moment_leaves_an_identity_that_can_be_used(
    tmp_path: Path,
    device: Device,
    authorities: tuple[Authority, Authority],
    monkeypatch: pytest.MonkeyPatch,
    keeps_old_root: bool,
) -> None:
    old, new = authorities
    before = device.issued(old, old.pem)
    after = device.issued(new, old.pem + new.pem if keeps_old_root else new.pem)
    for cut_at in itertools.count():
        device.has(before)
        disk = Disk(device.folder)
        try:
            with disk.watched(monkeypatch, cut_at):
                put_in_place("gw-1", device.broker, after)
        except PowerCut:
            for lose in (True, False):
                if lose:
                    disk.lose()
                load_identity("gw-1", device.broker)
            put_in_place("gw-1", device.broker, after)
        assert device.broker.ca.read_text() == after.ca_pem
        assert device.broker.certificate.read_text() == after.certificate_pem
        if not disk.dead:
            break
    assert cut_at > 10, "there was something to cut"


def test_what_is_not_this_device_s_is_not_put_in_place(
    device: Device, authorities: tuple[Authority, Authority]
) -> None:
    old, new = authorities
    before = device.issued(old, old.pem)
    device.has(before)
    other = device.issued(old, old.pem, "gw-2")
    foreign = device.issued(new, old.pem)
    stranger = Renewed(foreign.certificate_pem, "no PEM")
    for bad in (other, foreign, stranger, Renewed("", "")):
        with pytest.raises(IdentityError):
            put_in_place("gw-1", device.broker, bad)
        assert device.broker.certificate.read_text() == before.certificate_pem
        assert device.broker.ca.read_text() == before.ca_pem
        assert sorted(path.name for path in device.folder.iterdir()) == ["ca.pem", "cert.pem"]


def test_the_same_roots_stay_the_same_file(authorities: tuple[Authority, Authority]) -> None:
    old, new = authorities
    assert both_of(old.pem, old.pem) == old.pem
    assert both_of(old.pem, old.pem + new.pem) == old.pem + new.pem
    assert both_of(old.pem, new.pem) == new.pem + old.pem


def test_json_of_a_nonce_fits_a_url() -> None:
    assert json.dumps(Nonces().make(1.0)).strip('"').replace("-", "").replace("_", "").isalnum()
