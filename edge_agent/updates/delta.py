"""Makes an artifact from an older one that is here and from what is different, in bounded memory.

A delta is one zstd frame for which the older artifact's bytes are the dictionary (``zstd
--patch-from``). Nothing vouches for it: what comes of it has the signed SHA-256, or is thrown away.
"""

import importlib.util
import mmap
from pathlib import Path
from typing import Final

from edge_agent.errors import UpdateError
from edge_agent.link.https import CHUNK
from fleet_protocol.texts import _

SHARE: Final = 0.9
"""A delta larger than this share of the artifact is not worth its work."""

_HEADER: Final = 18
"""Bytes that a frame's header has at most."""

_MIB: Final = 1 << 20


class DeltaUseless(UpdateError):  # noqa: N818 - the whole artifact can be fetched instead
    """Nothing can be made of this delta."""


def place_of(base: str, target: str) -> str:
    """Where the delta from the artifact ``base`` to ``target`` lies in a source, by their SHA-256."""
    return f"image/deltas/{base}/{target}.zst"


def is_possible(base_size: int, length: int, most_mib: int) -> bool:
    """Whether deltas can be read here, and this one within ``most_mib`` MiB of memory: both are held."""
    return base_size + length <= most_mib * _MIB and importlib.util.find_spec("zstandard") is not None


def rebuild(base: Path, delta: Path, out: Path, length: int) -> None:
    """Write to ``out`` the ``length`` bytes that ``delta`` makes of ``base``; they are not verified.

    Raises:
        DeltaUseless: it is no such delta.
        OSError: reading or writing failed.
    """
    import zstandard

    try:
        _require_frame(delta, length)
        with (
            base.open("rb") as old,
            mmap.mmap(old.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as known,
            delta.open("rb") as source,
            out.open("wb") as target,
        ):
            dictionary = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            machine = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=max(length, _MIB))
            reader = machine.stream_reader(source)
            done = 0
            while chunk := reader.read(CHUNK):
                done += len(chunk)
                if done > length:
                    raise DeltaUseless(_("it makes more than the {length} bytes").format(length=length))
                target.write(chunk)
    except (zstandard.ZstdError, ValueError) as error:
        raise DeltaUseless(_("it cannot be read: {reason}").format(reason=error)) from None
    if done < length:
        raise DeltaUseless(_("it makes {done} of {length} bytes").format(done=done, length=length))


def _require_frame(delta: Path, length: int) -> None:
    """Its head says what it makes; what claims more memory than that is not begun."""
    import zstandard

    with delta.open("rb") as source:
        head = zstandard.get_frame_parameters(source.read(_HEADER))
    if head.content_size != length or head.window_size > max(length, _MIB):
        raise DeltaUseless(
            _("it claims to make {size} bytes with a window of {window}; {length} bytes are wanted").format(
                size=head.content_size, window=head.window_size, length=length
            )
        )
