"""What is said to EMQX is what is said to mosquitto. The files are compared; no EMQX runs here."""

import re
from pathlib import Path

import pytest

from fleet_protocol.messages import MAX_PAYLOAD
from fleet_protocol.topics import Channel, every_device
from fleet_server.__main__ import main
from fleet_server.link import emqx, mosquitto

DEPLOYED = Path(__file__).parents[2] / "deploy" / "emqx"

RULE = re.compile(
    r"^\{(allow|deny), (.+?), (\{publish, .+?\}\]\}|publish|subscribe|all), \[(.+?)\]\}\.$",
    re.MULTILINE | re.DOTALL,
)


def rules() -> list[tuple[str, str, str, set[str]]]:
    found = RULE.findall(emqx.render_access())
    return [(perm, who, action, set(re.findall(r'"(.+?)"', topics))) for perm, who, action, topics in found]


def test_the_files_are_those_of_the_code() -> None:
    assert (DEPLOYED / "acl.conf").read_text() == emqx.render_access(), (
        "run: .venv/bin/python -m fleet_server broker-acl --for emqx > deploy/emqx/acl.conf"
    )
    text = (DEPLOYED / "emqx.conf").read_text()
    assert f"max_packet_size = {(MAX_PAYLOAD + mosquitto.PACKET_OVERHEAD) // 1024}KB" in text
    assert f"max_mqueue_len = {mosquitto.MAX_QUEUED_MESSAGES}" in text


def test_every_right_of_a_service_is_there_and_no_other() -> None:
    for service, rights in mosquitto.SERVICE_RIGHTS.items():
        given = {
            (action, topic)
            for _perm, who, action, topics in rules()
            if who == f'{{username, "{service}"}}'
            for topic in topics
        }
        assert given == {({"read": "subscribe", "write": "publish"}[right], topic) for right, topic in rights}


def test_a_device_has_its_own_subtree_and_keeps_only_what_is_kept() -> None:
    own = {(action, topic) for perm, who, action, topics in rules() if who == "all" for topic in topics}
    assert own == {
        (
            "subscribe"
            if not channel.is_up
            else "publish"
            if channel.delivery.retained
            else "{publish, [{retain, false}]}",
            f"argan/v1/${{username}}/{channel.value}",
        )
        for channel in Channel
    }


def test_a_service_never_gets_what_devices_have_and_the_rest_is_denied() -> None:
    text = emqx.render_access()
    denied = text.index('{deny, {username, {re, "^svc\\\\."}}, all, ["#"]}.')
    assert denied < text.index("{allow, all,")
    assert text.endswith("{deny, all}.\n")


@pytest.mark.parametrize(("broker", "expected"), [("emqx", emqx), ("mosquitto", mosquitto)])
def test_the_command_prints_it(broker: str, expected: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker-acl", "--for", broker]) == 0
    assert capsys.readouterr().out == expected.render_access()  # type: ignore[attr-defined]
    assert every_device(Channel.TELEMETRY) in expected.render_access()  # type: ignore[attr-defined]
