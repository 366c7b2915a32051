"""Enrollment at the server: who may invite where, what is recorded, and what if many come at once."""

import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.enrollment import MAX_BODY, Application, Enrolled, decode
from fleet_server.access import people
from fleet_server.access.roles import Actor
from fleet_server.access.tokens import digest, provide_token
from fleet_server.authority.authority import open_authority
from fleet_server.config import ServerConfig, Settings, resolve
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import AuditRecord, Certificate, Claim, HardwareUnit, Person, Role, Token
from fleet_server.devices.groups import members, set_group
from fleet_server.errors import EnrollmentRefused, ServerError
from fleet_server.identity import revoking
from fleet_server.identity.enrollment_routes import BURST
from fleet_server.identity.invitations import Wish, accept, invite
from fleet_server.updates.listener import create_device_app
from fleet_server.updates.office import provide_keys
from tests.support.centre import answering, make_centre, now_ms, request_pem, served

SHELL = Actor.shell("test")
ADDRESS = "192.0.2.7"


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[tuple[Engine, ServerConfig]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config
    engine.dispose()


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[tuple[Engine, ServerConfig]]:
    """A centre on a database of either kind."""
    (tmp_path / "either").mkdir()
    config = resolve(tmp_path / "either", Settings(mqtt_port=8883, database_url=database_url))
    open_authority(config.authority, may_make=True)
    engine = open_engine(config.database_url)
    provide_token(engine, config.token, config.tenant)
    provide_keys(config)
    yield engine, config
    engine.dispose()


def application(
    token: str, key: ec.EllipticCurvePrivateKey | None = None, serial: str = "b:1"
) -> Application:
    invitation = decode(token)
    return Application(invitation.secret.hex(), request_pem(invitation.device, key), serial)


@pytest.mark.attack
def test_of_many_boards_with_one_invitation_one_comes_in(either: tuple[Engine, ServerConfig]) -> None:
    token = invite(*either, Wish("gw-1", "pi5", "north", replaces=False, expires_s=3600), SHELL).token
    begin = threading.Barrier(6)

    def try_in(number: int) -> Enrolled | str:
        mine = application(token, serial=f"b:{number}")
        begin.wait()
        try:
            return accept(*either, mine, ADDRESS)
        except EnrollmentRefused as error:
            return error.code

    with ThreadPoolExecutor(6) as pool:
        came = list(pool.map(try_in, range(6)))
    assert sum(isinstance(one, Enrolled) for one in came) == 1
    assert [one for one in came if isinstance(one, str)] == ["invitation_used"] * 5
    with Session(either[0]) as session:
        assert len(session.exec(select(Certificate)).all()) == 1
        assert len(session.exec(select(HardwareUnit)).all()) == 1
        actions = session.exec(select(AuditRecord.action).order_by(col(AuditRecord.number))).all()
    assert [one for one in actions if one.startswith("device.")] == ["device.invite", "device.enroll"]


def test_a_swap_closes_one_board_and_opens_another(either: tuple[Engine, ServerConfig]) -> None:
    first = invite(*either, Wish("gw-1", "pi4", "north", replaces=False, expires_s=3600), SHELL).token
    accept(*either, application(first, serial="b:old"), ADDRESS)
    again = invite(*either, Wish("gw-1", "pi5", None, replaces=True, expires_s=3600), SHELL).token
    key = ec.generate_private_key(ec.SECP256R1())
    given = {accept(*either, application(again, key, "b:new"), ADDRESS).certificate_pem for _ in range(2)}
    assert len(given) == 1, "whoever never saw the answer revokes nothing by asking again"
    with Session(either[0]) as session:
        units = {unit.serial: unit.until_ms for unit in session.exec(select(HardwareUnit))}
        living = session.exec(select(Certificate).where(col(Certificate.revoked_ms).is_(None))).all()
    assert units["b:old"] is not None
    assert units["b:new"] is None
    assert len(living) == 1


@pytest.mark.attack
def test_who_was_revoked_does_not_come_in_by_what_was_open_for_them(
    centre: tuple[Engine, ServerConfig],
) -> None:
    """By a replacement that somebody was invited to before the device was put out."""
    token = invite(*centre, Wish("gw-1", "generic", None, replaces=False, expires_s=3600), SHELL).token
    accept(*centre, application(token, ec.generate_private_key(ec.SECP256R1())), ADDRESS)
    swap = invite(*centre, Wish("gw-1", "generic", None, replaces=True, expires_s=3600), SHELL).token
    with writing(centre[0]) as session:
        revoking.revoke(session, "default", "gw-1", reason="stolen", actor=SHELL, now_ms=now_ms())
    with pytest.raises(EnrollmentRefused, match="withdrawn"):
        accept(*centre, application(swap, ec.generate_private_key(ec.SECP256R1())), ADDRESS)


def test_an_invitation_is_for_one_certificate_and_no_later_one(centre: tuple[Engine, ServerConfig]) -> None:
    token = invite(*centre, Wish("gw-1", "generic", None, replaces=False, expires_s=3600), SHELL).token
    mine = application(token, ec.generate_private_key(ec.SECP256R1()))
    first = accept(*centre, mine, ADDRESS)
    assert accept(*centre, mine, ADDRESS).certificate_pem == first.certificate_pem
    with writing(centre[0]) as session:
        (row,) = session.exec(select(Certificate)).all()
        row.not_after_ms = now_ms() - 1
        session.add(row)
    with pytest.raises(EnrollmentRefused, match="counts no more") as refused:
        accept(*centre, mine, ADDRESS)
    assert "edge-agent identity renew" in refused.value.next_step
    with Session(centre[0]) as session:
        assert len(session.exec(select(Certificate)).all()) == 1


@pytest.mark.attack
def test_a_copied_card_is_no_second_device(centre: tuple[Engine, ServerConfig]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name in ("gw-1", "gw-2"):
        token = invite(*centre, Wish(name, "pi5", None, replaces=False, expires_s=3600), SHELL).token
        if name == "gw-1":
            accept(*centre, application(token, key), ADDRESS)
        else:
            with pytest.raises(EnrollmentRefused, match="that of gw-1: its storage was copied"):
                accept(*centre, application(token, key), ADDRESS)


def test_what_fails_leaves_the_invitation_as_it_was(centre: tuple[Engine, ServerConfig]) -> None:
    token = invite(*centre, Wish("gw-1", "pi5", None, replaces=False, expires_s=3600), SHELL).token
    wrong = msgspec.structs.replace(application(token), csr_pem=request_pem("gw-2"))
    with pytest.raises(ServerError):
        accept(*centre, wrong, ADDRESS)
    assert accept(*centre, application(token), ADDRESS).device == "gw-1"


@pytest.mark.attack
def test_no_secret_is_kept(centre: tuple[Engine, ServerConfig]) -> None:
    secret = decode(
        invite(*centre, Wish("gw-1", "pi5", None, replaces=False, expires_s=3600), SHELL).token
    ).secret
    content = (centre[1].data / "fleet.db").read_bytes() + (centre[1].data / "fleet.db-wal").read_bytes()
    assert secret not in content
    assert secret.hex().encode() not in content


@pytest.fixture
def devices(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    with served(create_device_app(*centre)) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/enrollment", b"no json", 403, "invalid"),
        ("/v1/enrollment", b'{"secret": "short", "csr_pem": "", "serial": "b:1"}', 403, "invalid"),
        ("/v1/enrollment", b"x" * (MAX_BODY + 1), 413, "too_large"),
        ("/v1/enrollment/claims", b"[]", 403, "invalid"),
        (
            "/v1/enrollment/claims",
            b'{"batch": "none", "csr_pem": "", "statement": ""}',
            403,
            "batch_unknown",
        ),
    ],
)
def test_nonsense_is_answered_in_one_shape(
    devices: httpx.Client, path: str, body: bytes, status: int, code: str
) -> None:
    answer = devices.post(path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(answer.json()) == {"code", "message", "next_step"}


@pytest.mark.attack
def test_an_address_that_asks_too_often_has_to_wait_and_others_do_not(
    devices: httpx.Client,
) -> None:
    answers = [devices.get("/v1/enrollment/ca") for _ in range(2 * int(BURST))]
    codes = [answer.status_code for answer in answers]
    assert codes[: int(BURST)] == [200] * int(BURST)
    refused = answers[codes.index(429)]
    assert (refused.headers["Retry-After"], refused.json()["code"]) == ("1", "too_often")
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=devices.base_url, transport=transport) as other:
        assert other.get("/v1/enrollment/ca").status_code == 200


def technician(engine: Engine, config: ServerConfig, *, site: str = "", tag: str = "") -> dict[str, str]:
    """The header of a new technician with rights there alone."""
    token, name = secrets.token_urlsafe(), f"tech-{site}{tag}"
    with writing(engine) as session:
        session.add(Person(tenant=config.tenant, id=name, name=name, created_ms=now_ms()))
        session.flush()
        session.add(Role(tenant=config.tenant, person=name, role="technician", site=site, tag=tag))
        session.add(
            Token(tenant=config.tenant, sha256=digest(token), person=name, name="t", created_ms=now_ms())
        )
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def client(centre: tuple[Engine, ServerConfig]) -> Iterator[httpx.Client]:
    with answering(*centre) as client:
        yield client


@pytest.mark.attack
def test_a_technician_of_one_site_lets_devices_in_there_alone(
    centre: tuple[Engine, ServerConfig], client: httpx.Client
) -> None:
    north = technician(*centre, site="north")
    path = "/v1/devices/gw-1/invitations"
    assert client.post(path, json={"site": "south"}, headers=north).status_code == 403
    assert client.post(path, json={}, headers=north).status_code == 403
    assert client.post(path, json={"site": "north"}, headers=north).status_code == 201
    client.post(path, json={"site": "south"})
    assert len(client.get(path).json()["items"]) == 2
    (mine,) = client.get(path, headers=north).json()["items"]
    assert (mine["site"], mine["invited_by"]) == ("north", "tech-north")
    other = next(one["id"] for one in client.get(path).json()["items"] if one["site"] == "south")
    assert client.delete(f"{path}/{other}", headers=north).status_code == 403
    new = {"id": "gw-2", "csr_pem": request_pem("gw-2"), "site": "south"}
    assert client.post("/v1/devices", json=new, headers=north).status_code == 403
    assert client.post("/v1/devices", json=new).status_code == 201
    replacing = {"replaces": True, "site": "north"}
    assert client.post("/v1/devices/gw-2/invitations", json=replacing, headers=north).status_code == 404
    assert client.put("/v1/devices/gw-2/tags/mine", headers=north).status_code == 404


@pytest.mark.attack
def test_who_is_disabled_has_no_invitation_left_in_the_drawer(
    either: tuple[Engine, ServerConfig],
) -> None:
    engine, config = either
    for name in ("leaver", "stayer"):
        people.add(engine, config.tenant, SHELL, name, [])
    invited = {
        (who, device): invite(
            engine,
            config,
            Wish(device, "generic", None, replaces=False, expires_s=3600),
            Actor(who, "technician", ADDRESS),
        )
        for who, device in (("leaver", "gw-1"), ("leaver", "gw-2"), ("stayer", "gw-3"))
    }
    accept(*either, application(invited["leaver", "gw-1"].token), ADDRESS)
    people.disable(engine, config.tenant, SHELL, "leaver")
    people.enable(engine, config.tenant, SHELL, "leaver")
    with pytest.raises(EnrollmentRefused, match="withdrawn"):
        accept(*either, application(invited["leaver", "gw-2"].token), ADDRESS)
    accept(*either, application(invited["stayer", "gw-3"].token), ADDRESS)
    with Session(engine) as session:
        query = select(AuditRecord.detail).where(AuditRecord.action == "person.disable")
        told = json.loads(session.exec(query).one())
    assert told["invitations"] == [f"gw-2 {invited['leaver', 'gw-2'].invitation.id}"]


@pytest.mark.attack
def test_a_technician_of_one_site_decides_about_its_boards_alone(
    centre: tuple[Engine, ServerConfig], client: httpx.Client
) -> None:
    north = technician(*centre, site="north")
    for site in ("north", "south"):
        new = {"id": site, "csr_pem": request_pem(f"claim.{site}"), "site": site, "most": 3}
        assert client.post("/v1/batches", json=new).status_code == 201
    denied = {"id": "other", "csr_pem": request_pem("claim.other"), "site": "south", "most": 3}
    assert client.post("/v1/batches", json=denied, headers=north).status_code == 403
    assert [one["id"] for one in client.get("/v1/batches", headers=north).json()["items"]] == ["north"]
    assert client.delete("/v1/batches/south", headers=north).status_code == 403
    assert client.delete("/v1/batches/north", headers=north).json()["state"] == "closed"


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/devices/gw-1/invitations", "/v1/batches"])
def test_a_profile_that_there_is_not_is_refused_with_those_there_are(client: httpx.Client, path: str) -> None:
    name = "claim.gw-1" if path == "/v1/batches" else "gw-1"
    new = {"id": "gw-1", "csr_pem": request_pem(name), "most": 3}
    refused = client.post(path, json=new | {"profile": "pi5"})
    assert refused.status_code == 422
    assert "no firmware profile is named 'pi5'; there are: generic, " in refused.json()["message"]
    assert client.post(path, json=new | {"profile": "raspberry-pi-5"}).status_code == 201


def test_a_start_leaves_other_people_s_tokens_alone(
    centre: tuple[Engine, ServerConfig], client: httpx.Client
) -> None:
    engine, config = centre
    with writing(engine) as session:
        session.add(Person(tenant=config.tenant, id="ann", name="ann", created_ms=now_ms()))
        session.flush()
        session.add(Token(tenant=config.tenant, sha256="ab", person="ann", name="local", created_ms=now_ms()))
    provide_token(engine, config.token, config.tenant)
    with Session(engine) as session:
        found = session.get(Token, (config.tenant, "ab"))
    assert found is not None
    assert found.revoked_ms is None
    assert client.get("/v1/devices").status_code == 200


def wait_in(engine: Engine, config: ServerConfig, claim: str, batch: str) -> None:
    """A board of ``batch`` that waits for a decision."""
    with writing(engine) as session:
        session.add(
            Claim(
                tenant=config.tenant,
                id=claim,
                batch=batch,
                serial=f"b:{claim}",
                csr_pem="",
                key_sha256=claim,
                source=ADDRESS,
                state="waiting",
                asked_ms=now_ms(),
            )
        )


def test_boards_elsewhere_are_neither_decided_about_nor_named(
    centre: tuple[Engine, ServerConfig], client: httpx.Client
) -> None:
    pump, north = technician(*centre, tag="pump"), technician(*centre, site="north")
    for site in ("north", "south"):
        new = {"id": site, "csr_pem": request_pem(f"claim.{site}"), "site": site, "most": 3}
        assert client.post("/v1/batches", json=new).status_code == 201
    for claim, batch in (("0" * 12, "south"), ("1" * 12, "north"), ("2" * 12, "south")):
        wait_in(*centre, claim, batch)
    decided = {"device": "gw-1", "tags": ["pump"]}
    for headers in (pump, north):
        answer = client.post(f"/v1/claims/{'0' * 12}/approval", json=decided, headers=headers)
        assert answer.status_code == 403, "nobody gives himself the right by the tag that he gives"
    page = client.get("/v1/claims", params={"limit": 1}, headers=north).json()
    assert ([one["id"] for one in page["items"]], page["next_after"]) == (["1" * 12], "1" * 12)
    rest = client.get("/v1/claims", params={"limit": 1, "after": "1" * 12}, headers=north).json()
    assert rest == {"items": [], "next_after": None}
    assert client.get("/v1/claims", headers=pump).json() == {"items": [], "next_after": None}
    batches = client.get("/v1/batches", params={"limit": 1, "after": "north"}, headers=north).json()
    assert batches == {"items": [], "next_after": None}
    assert len(client.get("/v1/claims").json()["items"]) == 3
    assert client.post(f"/v1/claims/{'1' * 12}/approval", json=decided, headers=north).status_code == 200


def test_tags_are_put_on_and_taken_off_and_found_by_groups(
    centre: tuple[Engine, ServerConfig], client: httpx.Client
) -> None:
    for name in ("gw-1", "gw-2"):
        client.post("/v1/devices", json={"id": name, "csr_pem": request_pem(name)})
    for word in ("pump", "north", "pump"):
        tags = client.put(f"/v1/devices/gw-1/tags/{word}").json()["tags"]
    assert tags == ["north", "pump"]
    assert client.get("/v1/devices/gw-1").json()["device"]["tags"] == tags
    engine, config = centre
    for text, found in (
        ("tag=pump", ["gw-1"]),
        ("tag=no* tag=p*", ["gw-1"]),
        ("tag=x", []),
        ("tag=*", ["gw-1"]),
    ):
        set_group(engine, config.tenant, SHELL, "some", text)
        with Session(engine) as session:
            assert [device.id for device in members(session, config.tenant, "some")] == found
    assert client.delete("/v1/devices/gw-1/tags/pump").json()["tags"] == ["north"]
    assert client.delete("/v1/devices/gw-1/tags/pump").json()["tags"] == ["north"]
    assert client.put("/v1/devices/gw-1/tags/No%20Tag").status_code == 422
    assert client.put("/v1/devices/gw-9/tags/pump").status_code == 404
    for number in range(31):
        client.put(f"/v1/devices/gw-1/tags/t{number}")
    full = client.put("/v1/devices/gw-1/tags/one-more")
    assert (full.status_code, full.json()["code"]) == (409, "limit_reached")
    with Session(engine) as session:
        records = session.exec(select(AuditRecord).where(AuditRecord.action == "device.tag")).all()
    assert len(records) == 2 + 1 + 31, "what changes nothing is not recorded"


def test_whoever_has_a_tag_keeps_to_it(centre: tuple[Engine, ServerConfig], client: httpx.Client) -> None:
    pump = technician(*centre, tag="pump")
    for name in ("gw-1", "gw-2"):
        client.post("/v1/devices", json={"id": name, "csr_pem": request_pem(name)})
    client.put("/v1/devices/gw-1/tags/pump")
    assert client.put("/v1/devices/gw-2/tags/pump", headers=pump).status_code == 404, (
        "nobody widens his rights"
    )
    assert client.put("/v1/devices/gw-1/tags/big", headers=pump).status_code == 200
    assert (
        client.post("/v1/devices/gw-1/invitations", json={"replaces": True}, headers=pump).status_code == 201
    )
    assert (
        client.post("/v1/devices/gw-2/invitations", json={"replaces": True}, headers=pump).status_code == 404
    )
