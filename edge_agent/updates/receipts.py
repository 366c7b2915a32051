"""The receipt that a bundle asks for: which nonce it shall answer, remembered until the next bundle asks.

The nonce is the server's and means nothing here. It is kept so that the receipt can be written again later,
when the update has come to its end and the stick is gone.
"""

import logging
from pathlib import Path
from typing import Final

from edge_agent.errors import UpdateBroken, UpdateError, UpdateUnreachable
from edge_agent.updates import records
from edge_agent.updates.records import Wanted
from edge_agent.updates.source import Bundle, NotThere, closing
from fleet_protocol.errors import VersionError
from fleet_protocol.texts import _
from fleet_protocol.versions import MAX_REQUEST, REQUEST, ReceiptRequest, decode_request

_LOG: Final = logging.getLogger(__name__)


def remember(folder: Path, bundle: Path, device: str, wall_ms: int) -> None:
    """Write down which receipt ``bundle`` asks of ``device``; one that asks for none changes nothing.

    Whatever is wrong with the request must not keep the update away: it is only told.
    """
    try:
        asked = _request(bundle)
        # Another device's bundle is refused by the look; its nonce would only push out our own.
        if asked is not None and asked.device == device:
            records.save(folder, Wanted(nonce=asked.nonce, taken_wall_ms=wall_ms))
    except (VersionError, UpdateError) as error:
        _LOG.warning(_("no receipt for {bundle}: {reason}").format(bundle=bundle, reason=error))


def asks(folder: Path, bundle: Path) -> bool:
    """Whether ``bundle`` is the one whose receipt is remembered."""
    try:
        asked = _request(bundle)
    except VersionError:
        return False
    return asked is not None and asked.nonce == records.load(folder, Wanted).nonce


def wanted(folder: Path) -> str:
    """The nonce that the receipt answers.

    Raises:
        UpdateBroken: no bundle has ever asked for a receipt.
    """
    nonce = records.load(folder, Wanted).nonce
    if not nonce:
        raise UpdateBroken(
            _(
                "no bundle has asked this device for a receipt; "
                "export one with 'fleet bundle export' and apply it with 'edge-agent update from FILE'"
            )
        )
    return nonce


def _request(bundle: Path) -> ReceiptRequest | None:
    """What ``bundle`` asks; None where it asks nothing, or cannot be opened, which the look will tell."""
    content = b""
    try:
        with closing(Bundle(bundle)) as source:
            for chunk in source.document(REQUEST):
                content += chunk
                if len(content) > MAX_REQUEST:
                    break
    except (NotThere, UpdateUnreachable):
        return None
    return decode_request(content)
