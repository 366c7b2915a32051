"""The same rights for EMQX 5, whose access list is a file of Erlang terms.

It knows two things that mosquitto's does not: a subscription is judged when it is asked for, and so
is the retain flag. The file is ``deploy/emqx/acl.conf``; what else such a broker needs stands beside it.
"""

from collections.abc import Iterable
from typing import Final

from fleet_protocol.topics import SERVICE_PREFIX, Channel, device_access
from fleet_server.link.mosquitto import SERVICE_RIGHTS

_HEAD: Final = """\
%% Who may do what at the broker: each service what it needs, each device its own subtree.
%% Printed by 'fleet-server broker-acl --for emqx'; it is not meant to be changed by hand.
%% The first rule that fits decides. ${username} is the common name of the client's certificate.
"""
_ACTIONS: Final = {"read": "subscribe", "write": "publish"}
_UNRETAINED: Final = "{publish, [{retain, false}]}"


def render_access() -> str:
    """The access list as ``acl.conf``."""
    lines = [_HEAD]
    for service, rights in SERVICE_RIGHTS.items():
        for right, action in _ACTIONS.items():
            topics = [topic for given, topic in rights if given == right]
            if topics:
                lines.append(_rule(f'{{username, "{service}"}}', action, topics))
    prefix = SERVICE_PREFIX.replace(".", "\\\\.")
    lines.append(f'{{deny, {{username, {{re, "^{prefix}"}}}}, all, ["#"]}}.')
    writes = [pattern for right, pattern in device_access() if right == "write"]
    retained = {channel.value for channel in Channel if channel.delivery.retained}
    kept = [pattern for pattern in writes if pattern.split("/", 3)[3] in retained]
    lines += [
        _rule("all", "publish", kept),
        _rule("all", _UNRETAINED, [pattern for pattern in writes if pattern not in kept]),
        _rule("all", "subscribe", [pattern for right, pattern in device_access() if right == "read"]),
        "{deny, all}.",
    ]
    return "\n".join(lines) + "\n"


def _rule(who: str, action: str, topics: Iterable[str]) -> str:
    named = ",\n    ".join(f'"{topic.replace("%u", "${username}")}"' for topic in topics)
    return f"{{allow, {who}, {action}, [\n    {named}\n]}}."
