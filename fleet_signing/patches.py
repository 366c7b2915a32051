"""Deltas between artifacts: one zstd frame with the older bytes as its dictionary (``--patch-from``). Pure.

Nothing signs a delta. What a device makes of it has the SHA-256 that was signed, or is thrown away.
"""

from typing import Final

import zstandard

LEVEL: Final = 19
"""Below it, places in a dictionary of many megabytes are not found; made once, read by a fleet."""


def make(old: bytes, new: bytes) -> bytes:
    """What turns ``old`` into ``new``; reading it takes about the memory of both."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(new),
        dict_size=len(old),
        # So wide that every byte of the old one stays in reach to the end.
        window_log=_log2(len(old) + len(new)),
        enable_ldm=True,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new)


def _log2(size: int) -> int:
    return min(max(size.bit_length(), zstandard.WINDOWLOG_MIN), zstandard.WINDOWLOG_MAX)
