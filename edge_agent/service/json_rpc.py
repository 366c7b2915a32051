"""JSON-RPC 2.0, one object a line: requests in, answers out. Pure; total over any bytes."""

from enum import IntEnum
from typing import Annotated, Any, Final, Literal

import msgspec

from fleet_protocol.texts import _

MAX_REQUEST: Final = 64 * 1024
"""Bytes of one request; the largest that anybody needs is a path."""


class ErrorCode(IntEnum):
    """The codes of the specification, and two of our own."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    REFUSED = -32000
    NOT_AVAILABLE = -32001


Id = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | Annotated[str, msgspec.Meta(max_length=64)] | None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Without an id it is a notification, which is not answered."""

    jsonrpc: Literal["2.0"]
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    params: dict[str, Any] = {}
    id: Id | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_answered(self) -> bool:
        """Whether whoever asked waits for an answer."""
        return self.id is not msgspec.UNSET

    @property
    def reply_to(self) -> Id:
        """The id that an answer carries."""
        return None if isinstance(self.id, msgspec.UnsetType) else self.id


class RpcError(Exception):
    """What a caller is told instead of a result."""

    def __init__(self, code: ErrorCode, message: str, call_id: Id = None) -> None:
        super().__init__(message)
        self.code: Final = code
        self.call_id: Final = call_id


def parse(line: bytes) -> Call:
    """The request in ``line``.

    Raises:
        RpcError: it is no JSON, or no request; with the request's id where that can be read.
    """
    try:
        content = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RpcError(ErrorCode.PARSE_ERROR, _("no JSON: {reason}").format(reason=_short(error))) from None
    try:
        return msgspec.convert(content, Call)
    except (msgspec.ValidationError, RecursionError) as error:
        reason = _("no request of JSON-RPC 2.0: {reason}").format(reason=_short(error))
        raise RpcError(ErrorCode.INVALID_REQUEST, reason, _id_of(content)) from None


def result(call_id: Id, content: Any) -> bytes:
    """The line that answers a request with ``content``."""
    return _line({"jsonrpc": "2.0", "id": call_id, "result": content})


def failure(error: RpcError, call_id: Id = None) -> bytes:
    """The line that answers a request with ``error``."""
    told = {"code": int(error.code), "message": str(error)}
    return _line({"jsonrpc": "2.0", "id": error.call_id if call_id is None else call_id, "error": told})


def _line(answer: dict[str, Any]) -> bytes:
    return msgspec.json.encode(answer, enc_hook=str) + b"\n"


def _id_of(content: Any) -> Id:
    given = content.get("id") if isinstance(content, dict) else None
    try:
        known: Id = msgspec.convert(given, Id)
    except msgspec.ValidationError:
        return None
    return known


def _short(error: Exception) -> str:
    return str(error)[:200]
