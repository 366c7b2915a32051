"""The topic grammar: what is a topic of ours, what is not, and what the broker is told to allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import topics
from fleet_protocol.errors import TopicError
from fleet_protocol.topics import Channel

DEVICE_IDS = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)


@given(device=DEVICE_IDS, channel=st.sampled_from(Channel))
def test_a_topic_parses_to_what_made_it(device: str, channel: Channel) -> None:
    assert topics.parse(topics.topic(device, channel)) == (device, channel)


@given(st.text(max_size=200))
def test_any_text_is_a_topic_or_a_topic_error(text: str) -> None:
    try:
        device, channel = topics.parse(text)
    except TopicError:
        return
    assert topics.topic(device, channel) == text


@pytest.mark.parametrize(
    "text",
    [
        "argan/v2/gw-01/up/telemetry",
        "argan/v1/GW-01/up/telemetry",
        "argan/v1//up/telemetry",
        "argan/v1/gw-01/up/telemetry\n",
        "argan/v1/gw-01/up/unheard",
        "argan/v1/gw-01/up/telemetry/more",
        "argan/v1/svc.ingest-1/up/telemetry",
        "$SYS/broker/version",
        "argan/v1/+/up/telemetry",
    ],
)
def test_what_is_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(TopicError):
        topics.parse(text)


@pytest.mark.parametrize("name", ["", "a" * 64, "Gw", "gw/01", "gw+", "svc.ingest-1", "gw\n"])
def test_bad_device_names_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(TopicError, match="1 to 63"):
        topics.topic(name, Channel.STATUS)


@given(st.text(max_size=80))
def test_no_name_is_both_a_device_and_a_service(name: str) -> None:
    assert not (topics.is_device_id(name) and topics.is_service_name(name))


def test_a_device_writes_up_and_reads_down_and_nothing_else() -> None:
    rules = topics.device_access()
    assert {access for access, pattern in rules if "/up/" in pattern} == {"write"}
    assert {access for access, pattern in rules if "/down/" in pattern} == {"read"}
    assert all(pattern.startswith("argan/v1/%u/") for _, pattern in rules)
