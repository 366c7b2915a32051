"""The server's own signing keys, and words for what signing refuses.

They are made at the first start and lie open, readable by their owner alone, because the server signs
by itself. Whoever steals them can withhold, or choose among what was published; they mint nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from fleet_server.errors import Refused, Stale, UpdatesError
from fleet_server.files import make_folder
from fleet_signing import keys
from fleet_signing.ceremony import OnlineKeys
from fleet_signing.errors import KeyFileError, ReleaseError, SigningError, StaleError

_IMAGE: Final = "image"
_DIRECTOR: Final = "director"


def provide_online_keys(folder: Path) -> None:
    """See to it that the server's own keys are in ``folder``; a key that is there is left as it is."""
    make_folder(folder)
    for role in (_IMAGE, _DIRECTOR):
        path = folder / f"{role}{keys.SUFFIX}"
        if not path.exists():
            with refusing():
                keys.write(path, role, keys.generate(), None)


def read_online_keys(folder: Path) -> OnlineKeys:
    """The server's own keys.

    Raises:
        UpdatesError: one of them is missing or cannot be read.
    """
    with refusing():
        image, director = (keys.read_open(folder / f"{role}{keys.SUFFIX}") for role in (_IMAGE, _DIRECTOR))
    return OnlineKeys(image, director)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what signing says into the server's own errors."""
    try:
        yield
    except (StaleError, ReleaseError) as error:
        raise Stale(str(error)) from error
    except KeyFileError as error:
        raise UpdatesError(
            _("{reason}. Restore the folder from a backup, or remove it and hold a key ceremony anew").format(
                reason=error
            )
        ) from error
    except SigningError as error:
        raise Refused(str(error)) from error
