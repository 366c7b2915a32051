"""A device proves itself over HTTPS to a real server; nobody else does, whatever they sign."""

import base64
import datetime as dt
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet_server.database.engine import open_engine
from fleet_server.errors import DeviceRefused
from fleet_server.identity.device_tokens import TokenDesk
from tests.support.device_post import DAY, GRANT, DevicePost, make_request
from tests.support.fleet_server import ServerProcess, add
from tests.support.waiting import wait_until

pytestmark = pytest.mark.attack

NESTED = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 20_000).rstrip(b"=").decode()
"""A header that no reader gets to the end of."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture
def post(server: ServerProcess, tmp_path: Path, request: pytest.FixtureRequest) -> DevicePost:
    """A device of the test's own."""
    return added(server, tmp_path / "gw", f"gw-{abs(hash(request.node.name)) % 10**9}")


def added(server: ServerProcess, folder: Path, name: str) -> DevicePost:
    add(server, name, folder)
    return DevicePost(server, folder)


def refusal(post: DevicePost, assertion: str) -> dict[str, Any]:
    answer = post.ask_token(assertion)
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = answer.json()
    assert set(found) == {"error", "error_description", "next_step"}
    assert answer.headers["Cache-Control"] == "no-store"
    return found


def test_a_token_opens_the_device_s_own_and_nobody_else_s(post: DevicePost) -> None:
    answer = post.ask_token(post.assertion()).json()
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 600, "device")
    token = answer["access_token"]
    assert post.orders(token) == 503, "its own, which awaits a key ceremony"
    assert post.orders(token, "gw-another") == 403
    with post.https() as client:
        path = f"/v1/updates/director/{post.name}/metadata/timestamp.json"
        for header in ({}, {"Authorization": "Basic eDp4"}, {"Authorization": "Bearer"}):
            stranger = client.get(path, headers=header)
            assert stranger.status_code == 401
            assert stranger.headers["WWW-Authenticate"] == 'Bearer realm="argan"'
        forged = client.get(path, headers={"Authorization": f"Bearer {token[:-2]}xx"})
        assert (forged.status_code, forged.json()["error"]) == (401, "invalid_token")
        assert 'error="invalid_token"' in forged.headers["WWW-Authenticate"]


def test_the_key_of_tokens_is_its_owner_s_alone_and_stays(server: ServerProcess) -> None:
    key = server.data / "device" / "token.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32


def test_an_assertion_counts_once(post: DevicePost) -> None:
    assertion = post.assertion()
    assert post.ask_token(assertion).status_code == 200
    again = refusal(post, assertion)
    assert again["error"] == "invalid_grant"
    assert "used before" in again["error_description"]
    claims = jwt.decode(assertion, options={"verify_signature": False})
    assert "used before" in refusal(post, post.assertion(nonce=claims["nonce"]))["error_description"]


def test_two_at_once_get_one_token(post: DevicePost) -> None:
    """The nonce is used up by one of them, however close they come."""
    from concurrent.futures import ThreadPoolExecutor

    assertion = post.assertion()
    with ThreadPoolExecutor(8) as pool:
        codes = [answer.status_code for answer in pool.map(post.ask_token, [assertion] * 8)]
    assert sorted(codes) == [200] + [400] * 7


NOW = int(time.time())
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "it has ended": {"exp": NOW - 3600},
    "it lasts a day": {"exp": NOW + 86_400},
    "it lasts for ever": {"exp": None},
    "it ends at no number": {"exp": "soon"},
    "it ends at infinity": {"exp": float("inf")},
    "another server": {"aud": "https://fleet.example/v1/device/token"},
    "another path": {"aud": "https://localhost/v1/device/nonce"},
    "no audience": {"aud": None},
    "audiences": {"aud": ["https://localhost/v1/device/token", "https://other"]},
    "another device": {"sub": "gw-another", "iss": "gw-another"},
    "another subject": {"sub": "gw-another"},
    "another issuer": {"iss": "gw-another"},
    "a number as device": {"iss": 7, "sub": 7},
    "no nonce": {"nonce": None},
    "a made nonce": {"nonce": "A" * 54},
    "no id": {"jti": None},
    "a number as id": {"jti": 7},
    "no time": {"iat": None},
    "not yet": {"nbf": NOW + 86_400},
}


@pytest.mark.parametrize("why", BAD_CLAIMS)
def test_an_assertion_that_says_anything_else_is_refused(shared: DevicePost, why: str) -> None:
    assert refusal(shared, shared.assertion(**BAD_CLAIMS[why]))["error"] == "invalid_grant"


@pytest.fixture(scope="module")
def shared(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> DevicePost:
    """One device for tests that leave it as it is."""
    return added(server, tmp_path_factory.mktemp("shared") / "gw", "gw-shared")


def test_a_device_with_a_wrong_idea_of_when_it_signed_gets_in(shared: DevicePost) -> None:
    for issued in (0, NOW + 20 * 365 * 86_400):
        assert shared.ask_token(shared.assertion(iat=issued)).status_code == 200


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


def test_no_algorithm_but_its_own_is_taken(shared: DevicePost) -> None:
    claims, kid = shared.claims(), {"kid": shared.serial}
    for name in ("none", "None", "NONE", "", "HS256", "ES384"):
        assert refusal(shared, raw({"alg": name, **kid}, claims))["error"] == "invalid_grant"
    # The public key, which everybody has, as a secret of HMAC.
    public = shared.key.public_key()
    for secret in (
        shared.certificate.public_bytes(Encoding.PEM),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ):
        import hashlib
        import hmac

        unsigned = raw({"alg": "HS256", **kid}, claims).rsplit(".", 1)[0]
        seal = hmac.digest(secret, unsigned.encode(), hashlib.sha256)
        confused = f"{unsigned}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"
        assert refusal(shared, confused)["error"] == "invalid_grant"
    assert shared.ask_token(shared.assertion(nonce=claims["nonce"])).status_code == 200, "none used it up"


def test_a_key_that_comes_with_the_assertion_is_not_looked_at(shared: DevicePost) -> None:
    thief = ec.generate_private_key(ec.SECP256R1())
    pem = thief.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwk = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(thief.public_key()))  # type: ignore[attr-defined]
    for more in ({"jwk": jwk}, {"x5c": ["MII="]}, {"jku": "https://thief.example/keys"}, {"crit": ["x"]}, {}):
        headers = {"kid": shared.serial, **more}
        forged = jwt.encode(shared.claims(), pem, "ES256", headers=headers)
        assert refusal(shared, forged)["error"] == "invalid_grant"
        if more:
            honest = jwt.encode(shared.claims(), shared.key, "ES256", headers=headers)
            assert refusal(shared, honest)["error"] == "invalid_grant"


def test_another_device_s_certificate_proves_nothing_for_it(
    shared: DevicePost, server: ServerProcess, tmp_path: Path
) -> None:
    other = added(server, tmp_path / "gw", "gw-other-key")
    forged = jwt.encode(shared.claims(), other.key, "ES256", headers={"kid": other.serial})
    assert refusal(shared, forged)["error"] == "invalid_grant"
    forged = jwt.encode(shared.claims(), other.key, "ES256", headers={"kid": shared.serial})
    assert refusal(shared, forged)["error"] == "invalid_grant"


@pytest.mark.parametrize("kid", ["", "0", "f" * 40, "F0", "../../x", "\0", "' OR 1=1 --", "é", "f" * 4000, 7])
def test_a_strange_certificate_number_is_a_stranger(shared: DevicePost, kid: object) -> None:
    if isinstance(kid, str):
        forged = jwt.encode(shared.claims(), shared.key, "ES256", headers={"kid": kid})
    else:
        forged = raw({"alg": "ES256", "kid": kid}, shared.claims(), b"x" * 64)
    found = refusal(shared, forged)
    assert found["error_description"] == "the assertion does not prove a device of this fleet"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": GRANT}, "invalid_request"),
        ({"grant_type": GRANT, "assertion": ["a", "b"]}, "invalid_request"),
        ({"grant_type": GRANT, "assertion": "no token"}, "invalid_grant"),
        ({"grant_type": GRANT, "assertion": "."}, "invalid_grant"),
        ({"grant_type": GRANT, "assertion": f"{NESTED}.e30.eA"}, "invalid_grant"),
        ({"grant_type": GRANT, "assertion": "x" * 40_000}, "invalid_request"),
        ({"grant_type": GRANT, **{f"f{n}": "x" for n in range(20)}}, "invalid_request"),
    ],
)
def test_what_is_no_request_is_told_so(shared: DevicePost, form: dict[str, Any], error: str) -> None:
    with shared.https() as client:
        answer = client.post("/v1/device/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, error)
        assert client.get("/v1/device/token").status_code == 405
        assert client.post("/v1/device/token", content=b"\xff\xfe").json()["error"] == "invalid_request"


def test_who_is_there_cannot_be_told_by_words_or_by_time(shared: DevicePost) -> None:
    """A stranger's number, and a known one with a wrong signature: one answer, after as much work.

    The work is measured where it is done: over a network it is lost in the noise.
    """
    thief = ec.generate_private_key(ec.SECP256R1())
    claims = shared.claims()
    forged = {
        kid: jwt.encode(claims, thief, "ES256", headers={"kid": kid}) for kid in (shared.serial, "abcdef01")
    }
    assert len({shared.ask_token(each).text for each in forged.values()}) == 1
    engine = open_engine(shared.config.database_url)
    desk = TokenDesk(engine, shared.config)
    work: dict[str, list[float]] = {kid: [] for kid in forged}
    for _round in range(400):
        for kid, assertion in forged.items():
            began = time.thread_time()
            with pytest.raises(DeviceRefused):
                desk.token(assertion, "192.0.2.1")
            work[kid].append(time.thread_time() - began)
    engine.dispose()
    known, unknown = (statistics.median(times) for times in work.values())
    assert abs(known - unknown) < 0.2 * max(known, unknown), (known, unknown)


def test_a_revoked_certificate_gets_no_token_and_its_living_one_stops(post: DevicePost) -> None:
    token = post.token()
    assert post.orders(token) == 503
    post.revoke()
    assert post.orders(token) == 401
    assert post.ask_certificate(token, make_request(post.name, post.key)).status_code == 401
    found = refusal(post, post.assertion())
    assert "revoked" in found["error_description"]
    assert "enroll" in found["next_step"]


def test_a_token_ends_and_cannot_be_made_by_hand(post: DevicePost, server: ServerProcess) -> None:
    claims = jwt.decode(post.token(), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 600
    key = (server.data / "device" / "token.key").read_bytes()
    ended = claims | {"iat": NOW - 1000, "exp": NOW - 400}
    for bad in (
        jwt.encode(ended, key, "HS256"),
        jwt.encode(claims | {"aud": "argan-person"}, key, "HS256"),
        jwt.encode(claims, b"x" * 32, "HS256"),
        raw({"alg": "none"}, claims),
        jwt.encode(claims, post.key, "ES256"),
    ):
        assert post.orders(bad) == 401
    assert post.orders(jwt.encode(claims, key, "HS256")) == 503, "the key alone decides"


def test_tokens_outlive_the_listener_and_nonces_do_not(post: DevicePost, server: ServerProcess) -> None:
    token, assertion = post.token(), post.assertion()
    child = server.children()["device"]
    os.kill(child.pid, signal.SIGKILL)

    def answers() -> bool:
        return server.children().get("device", child).pid != child.pid and bool(post.nonce())

    wait_until(answers, "the listener is back")
    assert post.orders(token) == 503
    assert "not fresh" in refusal(post, assertion)["error_description"]


def test_strangers_write_nothing(shared: DevicePost, server: ServerProcess) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (server.data / "device").iterdir()}

    before = files()
    for _each in range(50):
        shared.nonce()
    assert files() == before
    assert shared.recorded() == []


def test_a_certificate_in_its_grace_is_worth_renewing_and_no_more(post: DevicePost) -> None:
    post.age(50 * DAY)
    answer = post.ask_token(post.assertion()).json()
    assert answer["scope"] == "renew"
    assert post.orders(answer["access_token"]) == 403
    renewed = post.ask_certificate(answer["access_token"], make_request(post.name, post.key))
    assert renewed.status_code == 200, renewed.text
    assert post.recorded() == ["certificate.renew_late"]


def test_after_the_grace_there_is_none(post: DevicePost) -> None:
    post.age(30 * DAY + 181 * DAY)
    found = refusal(post, post.assertion())
    assert found["error_description"] == "the certificate expired 181 days ago, and the grace is 180 days"
    assert found["next_step"] == "Enroll the device again."
    post.age(30 * DAY + 179 * DAY)
    assert post.ask_token(post.assertion()).json()["scope"] == "renew"


def test_who_asks_early_gets_the_same_again_and_nothing_is_recorded(post: DevicePost) -> None:
    token, request = post.token(), make_request(post.name, post.key)
    first, second = (post.ask_certificate(token, request).json() for _each in range(2))
    assert first == second
    assert first["certificate_pem"] == (post.folder / "cert.pem").read_text()
    assert first["ca_pem"] == (post.folder / "ca.pem").read_text()
    assert post.recorded() == []


def test_a_lost_answer_costs_no_second_certificate(post: DevicePost) -> None:
    post.age(25 * DAY)
    token, request = post.token(), make_request(post.name, post.key)
    first, second = (post.ask_certificate(token, request).json() for _each in range(2))
    assert first == second
    assert first["certificate_pem"] != (post.folder / "cert.pem").read_text()
    assert post.recorded() == ["certificate.renew"]
    assert post.ask_token(post.assertion()).status_code == 200, "the one before counts until it ends"


def test_a_new_key_is_certified_for_who_proves_the_old_one(post: DevicePost) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answer = post.ask_certificate(post.token(), make_request(post.name, key))
    assert answer.status_code == 200, answer.text
    (post.folder / "cert.pem").write_text(answer.json()["certificate_pem"])
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (post.folder / "key.pem").write_bytes(pem)
    assert post.ask_token(post.assertion()).status_code == 200
    assert post.recorded() == ["certificate.renew"]


def test_a_request_for_another_name_or_none_is_refused(shared: DevicePost) -> None:
    token = shared.token()
    signed = make_request(shared.name, shared.key)
    for csr in (make_request("gw-another", shared.key), "", "no PEM", signed[:200], "x" * 40_000):
        answer = shared.ask_certificate(token, csr)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    with shared.https() as client:
        headers = {"Authorization": f"Bearer {token}"}
        for body in (b"", b"[]", b'{"csr_pem": 7}', b"\xff"):
            assert client.post("/v1/device/certificate", content=body, headers=headers).status_code == 400
        assert client.post("/v1/device/certificate", json={"csr_pem": signed}).status_code == 401
    assert shared.recorded() == []


def test_a_device_that_asks_without_end_is_slowed(post: DevicePost) -> None:
    token, request = post.token(), make_request(post.name, post.key)
    codes = [post.ask_certificate(token, request).status_code for _each in range(14)]
    assert codes == [200] * 12 + [429] * 2


def test_ages_are_what_they_are_called(post: DevicePost) -> None:
    """What the tests above stand on."""
    post.age(50 * DAY)
    ended = dt.datetime.now(dt.UTC) - post.certificate.not_valid_after_utc
    assert dt.timedelta(days=19.9) < ended < dt.timedelta(days=20.1)
