"""Asks the agent that runs, over its Unix socket, from another process of the same device."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_agent.errors import FolderInUse, UpdateError
from fleet_protocol.texts import _

SOCKET: Final = "agent.sock"

_ANSWER_S: Final = 3600.0
"""A stick's artifacts may be large and the board slow; Ctrl-C ends the waiting, not the update."""

_MAX_ANSWER: Final = 1 << 20


def call(path: Path, method: str, params: Mapping[str, object]) -> dict[str, Any]:
    """What the agent at ``path`` answers.

    Raises:
        FolderInUse: it does not.
        UpdateError: it says no, in its own words.
    """
    asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(asked) + b"\n")
            with connection.makefile("rb") as answers:
                answer = msgspec.json.decode(answers.readline(_MAX_ANSWER))
    except (OSError, msgspec.MsgspecError) as error:
        raise FolderInUse(
            _("the agent runs and does not answer on {path} ({reason}); stop it, then try again").format(
                path=path, reason=error
            )
        ) from None
    return _result_in(answer)


def _result_in(answer: Any) -> dict[str, Any]:
    try:
        if "error" in answer:
            raise UpdateError(str(answer["error"]["message"]))
        return msgspec.convert(answer["result"], dict[str, Any])
    except (TypeError, KeyError, msgspec.ValidationError) as error:
        raise UpdateError(_("the agent's answer is none: {reason}").format(reason=error)) from None
