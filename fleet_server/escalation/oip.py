"""A central model on another server, by the Open Inference Protocol v2 over HTTP with binary tensors.

Triton, OpenVINO Model Server and KServe speak it. Numbers travel as bytes behind a small JSON head,
because as JSON the same numbers take twenty to fifty times as long.
https://github.com/kserve/open-inference-protocol, extension "binary tensor data".
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from fleet_protocol.texts import _
from fleet_server.errors import BackendDown, BackendError, BackendLate
from fleet_server.escalation.backend import Metadata, Shapes, Tensor, check

CONNECT_S: Final = 5.0
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes; an answer is a few hundred probabilities."""

_HEAD: Final = "Inference-Header-Content-Length"
_TYPE: Final = "FP32"
_Kind = TypeVar("_Kind")


class _Parameters(msgspec.Struct):
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Answer(msgspec.Struct):
    outputs: list[_Output]


class _Model(msgspec.Struct):
    inputs: list[_Output]
    outputs: list[_Output]


class OipBackend:
    """The models of one inference server."""

    def __init__(self, url: str) -> None:
        """``url`` is what stands before ``/v2``."""
        self.name: Final = url
        # No proxy and no credentials from the environment: the server speaks to whom it was told to.
        self._client: Final = httpx.Client(base_url=url, trust_env=False)

    def metadata(self, model: str) -> Metadata:
        """See :class:`InferenceBackend`."""
        content, _head = self._call("GET", _path(model), time.monotonic() + CONNECT_S)
        described = _decoded(content, _Model)
        return Metadata(_shapes(described.inputs), _shapes(described.outputs))

    def infer(self, model: str, tensors: Mapping[str, Tensor], deadline_s: float) -> dict[str, Tensor]:
        """See :class:`InferenceBackend`."""
        head = msgspec.json.encode(
            {
                "inputs": [_described(name, check(one)) for name, one in tensors.items()],
                "parameters": {"binary_data_output": True},
            }
        )
        body = b"".join((head, *(one.values for one in tensors.values())))
        path, headers = f"{_path(model)}/infer", {_HEAD: str(len(head))}
        content, length = self._call("POST", path, deadline_s, body, headers)
        return _read(content, length)

    def close(self) -> None:
        """See :class:`InferenceBackend`."""
        self._client.close()

    def _call(
        self, method: str, path: str, deadline_s: float, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> tuple[bytes, int]:
        """The answer's content, and how much of it is its head."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0.0:
            raise BackendLate(_("the deadline passed before the inference server was asked"))
        octets = {"Content-Type": "application/octet-stream"} if body else {}
        timeout = httpx.Timeout(left_s, connect=min(left_s, CONNECT_S))
        with self._translated():
            request = self._client.build_request(
                method, path, content=body or None, headers={**headers, **octets}, timeout=timeout
            )
            response = self._client.send(request, stream=True)
            try:
                content = _collected(response, deadline_s)
            finally:
                response.close()
        if response.status_code != httpx.codes.OK:
            raise _refusal(self.name, response.status_code, content)
        head = response.headers.get(_HEAD, "")
        return content, int(head) if head.isdecimal() else len(content)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What HTTP can raise, as our errors."""
        try:
            yield
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:
            raise BackendDown(
                _("the inference server {url} cannot be reached: {reason}").format(
                    url=self.name, reason=str(error) or type(error).__name__
                )
            ) from None
        except httpx.TimeoutException:
            raise BackendLate(_("the inference server did not answer before the deadline")) from None
        except httpx.HTTPError as error:
            raise BackendDown(
                _("the inference server {url} broke off: {reason}").format(
                    url=self.name, reason=str(error) or type(error).__name__
                )
            ) from None


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _described(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(tensor.shape),
        "datatype": _TYPE,
        "parameters": {"binary_data_size": len(tensor.values)},
    }


def _collected(response: httpx.Response, deadline_s: float) -> bytes:
    """The content: never more than can be meant, and never later than the deadline, however it drips."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER:
            raise BackendError(_("the inference server's answer has no end"))
        if time.monotonic() > deadline_s:
            raise BackendLate(_("the inference server was still answering at the deadline"))
    return bytes(content)


def _refusal(url: str, status: int, content: bytes) -> BackendError:
    reason = content[:200].decode(errors="replace")
    text = _("the inference server {url} says {status}: {reason}").format(
        url=url, status=status, reason=reason
    )
    is_down = status == httpx.codes.NOT_FOUND or status >= httpx.codes.INTERNAL_SERVER_ERROR
    return BackendDown(text) if is_down else BackendError(text)


def _decoded(content: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackendError(
            _("the inference server speaks no Open Inference Protocol: {reason}").format(reason=error)
        ) from None


def _read(content: bytes, head: int) -> dict[str, Tensor]:
    tensors = {}
    place = head
    for output in _decoded(content[:head], _Answer).outputs:
        size = output.parameters.binary_data_size
        if output.datatype != _TYPE or size is None:
            raise BackendError(
                _("output {name!r} is {kind}, not binary FP32").format(
                    name=output.name[:64], kind=output.datatype[:16]
                )
            )
        tensors[output.name] = check(Tensor(tuple(output.shape), content[place : place + size]))
        place += size
    return tensors


def _shapes(tensors: list[_Output]) -> Shapes:
    foreign = [one for one in tensors if one.datatype != _TYPE]
    if foreign:
        raise BackendError(_("tensor {name!r} is not of float32").format(name=foreign[0].name[:64]))
    return {one.name: tuple(one.shape) for one in tensors}
