"""The text of an invitation, and what a device's folder is made of."""

import dataclasses
import tomllib

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import device_folder
from fleet_protocol.enrollment import MAX_TOKEN, Enrolled, Invitation, decode, encode
from fleet_protocol.errors import EnrollmentError

digests = st.binary(min_size=32, max_size=32)
devices = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
addresses = st.from_regex(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\]):[0-9]{1,5}", fullmatch=True)
invitations = st.builds(Invitation, addresses, digests, devices, digests, st.integers(0, 2**32 - 1))

ONE = Invitation("fleet.example:8884", b"c" * 32, "gw-1", b"s" * 32, 1_800_000_000)


@given(invitations)
def test_what_is_written_is_read(invitation: Invitation) -> None:
    text = encode(invitation)
    assert len(text) <= MAX_TOKEN
    assert decode(text) == invitation


@given(invitations, st.data())
def test_an_altered_character_is_noticed(invitation: Invitation, data: st.DataObject) -> None:
    text = encode(invitation)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCXYZ234567 -").filter(lambda one: one != text[place]))
    altered = text[:place] + letter + text[place + 1 :]
    try:
        assert decode(altered) == invitation, "the unused bits of the last character say nothing"
    except EnrollmentError:
        return


@given(st.one_of(st.text(max_size=900), st.binary(max_size=400).map(lambda b: "ARGAN1-" + b.hex().upper())))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(EnrollmentError):
        decode(text)


def test_spaces_line_breaks_and_small_letters_do_not_count() -> None:
    text = encode(ONE).lower()
    assert decode(f"  {text[:40]}\n{text[40:90]} {text[90:]}\r\n") == ONE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin with ARGAN1-"),
        ("ARGAN1-", "cut short or mistyped"),
        ("ARGAN1-!!!!", "cut short or mistyped"),
        (encode(ONE)[:-3], "cut short or mistyped"),
        ("ARGAN2-" + encode(ONE)[7:], "does not begin"),
        ("A" * 2000, "too long"),
    ],
)
def test_a_refusal_says_what_to_do(text: str, said: str) -> None:
    with pytest.raises(EnrollmentError, match=said):
        decode(text)


def test_a_whole_text_with_another_content_is_none() -> None:
    """As an older or newer program would write it, or somebody who knows the checksum."""
    for device in ("", "svc.ingest-1", "../x", "a" * 64):
        with pytest.raises(EnrollmentError, match="cannot be used"):
            decode(encode(msgspec.structs.replace(ONE, device=device)))


def test_the_folder_is_sealed_by_its_certificate_and_keeps_a_configuration() -> None:
    enrolled = Enrolled(
        "gw-1", 'pi"5', "CERT", "CA", "fleet.example", 8883, "https://s", 'https://x/"]', "{}", "{}"
    )
    files = device_folder.files(enrolled)
    assert files[-1].name == "cert.pem"
    assert [file.name for file in files if file.stays] == ["agent.toml"]
    content = tomllib.loads(next(file.content for file in files if file.stays).decode())
    assert (content["profile"], content["updates"]["url"]) == ('pi"5', 'https://x/"]')
    without = device_folder.files(dataclasses.replace(enrolled, image_root=None))
    assert [file.name for file in without] == ["ca.pem", "agent.toml", "cert.pem"]
    assert "updates" not in tomllib.loads(without[1].content.decode())


@pytest.mark.parametrize("content", [b"", b"no key", device_folder.new_key()[:-30]])
def test_a_key_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(EnrollmentError):
        device_folder.read_key(content)


def test_a_key_of_another_curve_is_refused() -> None:
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(EnrollmentError, match="P-256"):
        device_folder.read_key(pem)
