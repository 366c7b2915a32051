"""Logging in at an OIDC issuer: whose word counts, and every way in which it does not."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import RSAAlgorithm
from sqlalchemy import Engine

from fleet_server.access import people
from fleet_server.access.oidc import COOL_S, FRESH_S, Issuer
from fleet_server.access.people import Right
from fleet_server.access.roles import RoleName
from fleet_server.config import ServerConfig, Settings
from fleet_server.errors import IssuerDown, LoginRefused
from tests.support.centre import answering, make_centre
from tests.support.issuer import SigningIssuer, consent, mock_issuer, rsa_key
from tests.support.people import ROOT, TENANT, audited


@pytest.fixture
def signing() -> Iterator[SigningIssuer]:
    issuer = SigningIssuer()
    issuer.keys["first"] = rsa_key()
    yield issuer
    issuer.close()


@pytest.fixture
def issuer(signing: SigningIssuer) -> Issuer:
    """What the server makes of it."""
    return Issuer(signing.url, "fleet")


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    with mock_issuer() as url:
        yield url


@pytest.fixture
def centre(tmp_path: Path, mock: str) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data", Settings(oidc_issuer=mock, oidc_client_id="fleet"))
    people.add(engine, TENANT, ROOT, "ann", [Right(RoleName.VIEWER, "north")])
    people.link(engine, TENANT, ROOT, "ann", "ann@city")
    yield engine, config
    engine.dispose()


def test_an_id_token_says_who_somebody_is(signing: SigningIssuer, issuer: Issuer) -> None:
    assert issuer.subject(signing.sign("first", nonce="n"), "n", 0.0) == "s-1"
    assert (
        issuer.subject(signing.sign("first", nonce="n", aud=["fleet", "x"], azp="fleet"), "n", 1.0) == "s-1"
    )
    assert issuer.subject(signing.sign("first", "PS256", nonce="n"), "n", 1.0) == "s-1"
    assert signing.asked == ["/.well-known/openid-configuration", "/jwks"], "asked once"


@pytest.mark.attack
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://elsewhere.example"}, "issuer"),
        ({"aud": "another"}, "[Aa]udience"),
        ({"aud": ["another", "x"]}, "[Aa]udience"),
        ({"aud": ["fleet", "x"]}, "somebody else too"),
        ({"azp": "another"}, "somebody else too"),
        ({"nonce": "of another login"}, "another login"),
        ({"nonce": None}, "nonce"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": 2**40}, "not yet valid"),
        ({"nbf": 2**40}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "nobody"),
        ({"aud": None}, "aud"),
        ({"iss": None}, "iss"),
    ],
)
def test_a_token_that_is_for_somebody_else_or_over_is_refused(
    signing: SigningIssuer, issuer: Issuer, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoginRefused, match=reason):
        issuer.subject(signing.sign("first", **({"nonce": "n"} | claims)), "n", 0.0)


def is_refused(issuer: Issuer, token: str) -> bool:
    try:
        issuer.subject(token, "n", 0.0)
    except LoginRefused:
        return True
    return False


@pytest.mark.attack
def test_only_signatures_of_the_issuers_keys_count(signing: SigningIssuer, issuer: Issuer) -> None:
    good = signing.sign("first", nonce="n")
    header, content, signature = good.split(".")
    pem = (
        signing.keys["first"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    def headed(**fields: str) -> str:
        return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()

    shared = f"{headed(alg='HS256', kid='first')}.{content}"
    seal = base64.urlsafe_b64encode(hmac.digest(pem, shared.encode(), hashlib.sha256)).rstrip(b"=").decode()
    signing.keys["other"] = rsa_key()
    other = signing.sign("other", nonce="n")
    del signing.keys["other"]
    forged = {
        "alg none": f"{headed(alg='none')}.{content}.",
        "alg none, spelled otherwise": f"{headed(alg='nOnE', kid='first')}.{content}.",
        "HS256 with the public key": f"{shared}.{seal}",
        "an algorithm that is not taken": jwt.encode(
            jwt.decode(good, options={"verify_signature": False}),
            signing.keys["first"],
            "RS512",
            {"kid": "first"},
        ),
        "a key that is not known": other,
        "the name of one key, the signature of another": f"{header}.{content}.{other.split('.')[2]}",
        "an algorithm that is not the key's": f"{headed(alg='ES256', kid='first')}.{content}.{signature}",
        "no signature": f"{header}.{content}.",
        "no token": "x.y.z",
        "nothing": "",
    }
    for what, token in forged.items():
        assert is_refused(issuer, token), what
    assert issuer.subject(good, "n", 0.0) == "s-1"


@pytest.mark.attack
def test_a_key_that_the_token_brings_itself_is_not_looked_at(signing: SigningIssuer, issuer: Issuer) -> None:
    stranger = rsa_key()
    own = RSAAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    claims = jwt.decode(signing.sign("first", nonce="n"), options={"verify_signature": False})
    for more in ({"jwk": own}, {"jku": "http://127.0.0.1:9/jwks"}, {"x5u": "http://127.0.0.1:9/"}):
        token = jwt.encode(claims, stranger, "RS256", {"kid": "first"} | more)
        with pytest.raises(LoginRefused, match=r"[Ss]ignature"):
            issuer.subject(token, "n", 0.0)


def test_a_rotated_key_is_fetched_and_a_withdrawn_one_ends(signing: SigningIssuer, issuer: Issuer) -> None:
    old = signing.sign("first", nonce="n")
    assert issuer.subject(old, "n", 0.0) == "s-1"
    signing.keys["second"] = ec.generate_private_key(ec.SECP256R1())
    new = signing.sign("second", "ES256", nonce="n")
    with pytest.raises(LoginRefused, match="no such key"):
        issuer.subject(new, "n", COOL_S / 2)
    assert issuer.subject(new, "n", COOL_S) == "s-1"
    del signing.keys["first"]
    assert issuer.subject(old, "n", COOL_S + 1) == "s-1", "as long as its keys are fresh"
    with pytest.raises(LoginRefused, match="no such key"):
        issuer.subject(old, "n", COOL_S + FRESH_S)


@pytest.mark.attack
def test_invented_key_names_do_not_make_the_server_ask(signing: SigningIssuer, issuer: Issuer) -> None:
    issuer.subject(signing.sign("first", nonce="n"), "n", 0.0)
    for number in range(20):
        signing.keys[f"k{number}"] = signing.keys["first"]
        token = signing.sign(f"k{number}", nonce="n")
        del signing.keys[f"k{number}"]
        with pytest.raises(LoginRefused):
            issuer.subject(token, "n", COOL_S)
    assert len(signing.asked) == 4


def test_a_token_without_a_key_name_is_of_the_only_key(signing: SigningIssuer, issuer: Issuer) -> None:
    signing.has_names = False
    token = signing.sign("first", nonce="n")
    assert issuer.subject(token, "n", 0.0) == "s-1"
    signing.keys["second"] = rsa_key()
    with pytest.raises(LoginRefused, match="no such key"):
        issuer.subject(token, "n", FRESH_S)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"issuer": "https://elsewhere.example"}, "calls itself"),
        ({"jwks_uri": "https://elsewhere.example/jwks"}, "not where it does"),
        ({"jwks_uri": "http://127.0.0.1:1/jwks"}, "not where it does"),
    ],
)
def test_nobody_is_asked_whom_the_configuration_does_not_name(
    signing: SigningIssuer, issuer: Issuer, overrides: dict[str, str], reason: str
) -> None:
    signing.overrides = overrides
    with pytest.raises(IssuerDown, match=reason):
        issuer.subject(signing.sign("first", nonce="n"), "n", 0.0)
    assert signing.asked == ["/.well-known/openid-configuration"]


def test_an_issuer_that_is_away_is_told() -> None:
    with pytest.raises(IssuerDown, match="cannot be asked"):
        Issuer("http://127.0.0.1:9", "fleet").endpoints(0.0)


def log_in(client: httpx.Client, subject: str) -> tuple[httpx.Response, dict[str, str]]:
    """The code flow against the mock, by hand."""
    offer = client.get("/v1/session/oidc").raise_for_status().json()
    asked = {
        "response_type": "code", "scope": "openid", "client_id": offer["client_id"],
        "redirect_uri": "http://127.0.0.1:1/", "nonce": offer["nonce"], "state": "s",
    }  # fmt: skip
    where = str(httpx.URL(offer["authorization_endpoint"], params=asked))
    code = parse_qs(urlsplit(consent(where, subject).headers["location"]).query)["code"][0]
    got = httpx.post(
        offer["token_endpoint"],
        data={
            "grant_type": "authorization_code", "code": code, "client_id": offer["client_id"],
            "redirect_uri": "http://127.0.0.1:1/",
        },
        trust_env=False,
    ).json()  # fmt: skip
    body = {"id_token": got["id_token"], "nonce": offer["nonce"]}
    return client.post("/v1/session/oidc", json=body), body


def test_a_linked_person_gets_in_with_their_own_rights(centre: tuple[Engine, ServerConfig]) -> None:
    with answering(*centre) as client:
        opened, body = log_in(client, "ann@city")
        assert (opened.status_code, opened.json()["person"]) == (201, "ann")
        session = {"Authorization": f"Bearer {opened.json()['token']}"}
        assert client.get("/v1/devices", headers=session).status_code == 200
        assert client.get("/v1/people", headers=session).status_code == 403
        again = client.post("/v1/session/oidc", json=body)
        assert (again.status_code, again.json()["code"]) == (401, "login_refused"), "a token gets in once"
        people.disable(centre[0], TENANT, ROOT, "ann")
        assert log_in(client, "ann@city")[0].status_code == 401
    (record,) = audited(centre[0], "session.open")
    assert (record.person, record.role) == ("ann", "viewer")


@pytest.mark.attack
def test_who_is_not_linked_is_nobody(centre: tuple[Engine, ServerConfig]) -> None:
    with answering(*centre) as client:
        refused, _body = log_in(client, "eve@city")
        assert refused.status_code == 401
        assert "fleet person link" in refused.json()["message"]
        own_nonce = client.post("/v1/session/oidc", json={"id_token": "x.y.z", "nonce": "mine"})
        assert own_nonce.status_code == 401
    assert len(audited(centre[0], "session.refused")) == 1, "they are summed up"


def test_without_an_issuer_there_is_no_such_login(tmp_path: Path) -> None:
    engine, config = make_centre(tmp_path / "data")
    with answering(engine, config) as client:
        assert client.get("/v1/session/oidc").json()["code"] == "no_issuer"
        assert client.post("/v1/session/oidc", json={"id_token": "x", "nonce": "x"}).status_code == 404
    engine.dispose()


@contextmanager
def logging_in(url: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``fleet login --oidc``, and the page that it says to log in at."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet_console", "login", "--oidc", "--server", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CONFIG_HOME": str(folder), "BROWSER": "true"},
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split(": ", 1)[1].strip(), process
    finally:
        process.kill()
        process.communicate()


def test_the_command_logs_in_over_a_browser(centre: tuple[Engine, ServerConfig], tmp_path: Path) -> None:
    with answering(*centre) as client, logging_in(str(client.base_url), tmp_path) as (where, process):
        redirect = parse_qs(urlsplit(where).query)["redirect_uri"][0]
        stranger = httpx.get(redirect, params={"code": "x", "state": "wrong"}, trust_env=False)
        assert stranger.status_code == 404
        back = consent(where, "ann@city").headers["location"]
        assert httpx.get(back, trust_env=False).is_success
        out, complaint = process.communicate(timeout=30)
        assert process.returncode == 0, complaint
        assert "You are ann at" in out
        (kept,) = (tmp_path / "argan").glob("*.json")
        assert kept.stat().st_mode & 0o777 == 0o600
        token = json.loads(kept.read_text())["token"]
        assert token not in out + complaint
        assert client.get("/v1/devices", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.attack
def test_a_code_that_somebody_sees_is_worth_nothing_without_the_verifier(
    signing: SigningIssuer, tmp_path: Path
) -> None:
    settings = Settings(oidc_issuer=signing.url, oidc_client_id="fleet")
    engine, config = make_centre(tmp_path / "data", settings)
    people.add(engine, TENANT, ROOT, "ann", [])
    people.link(engine, TENANT, ROOT, "ann", "s-1")
    with answering(engine, config) as client:
        for is_meddled, code in ((False, 0), (True, 1)):
            with logging_in(str(client.base_url), tmp_path) as (where, process):
                meddled = where.replace("code_challenge=", "code_challenge=x") if is_meddled else where
                httpx.get(signing.authorize(meddled), trust_env=False)
                _out, complaint = process.communicate(timeout=30)
                assert process.returncode == code, complaint
                assert ("gave no ID token" in complaint) == is_meddled
    engine.dispose()
