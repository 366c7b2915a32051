"""A TLS socket that keeps why a session broke, of which paho says only that the connection was lost.

With TLS 1.3 the client's certificate is judged after the handshake, so a refusal arrives as an alert at
the first read, or, where the broker was quicker than the first packet, as an end while writing.
"""

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

from fleet_protocol.texts import _

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Witness(ssl.SSLSocket):
    """Tells of alerts, of the end of the stream, and of what breaks while writing; from any thread."""

    @staticmethod
    def tell(error: OSError) -> None:
        """Hear of what broke the session, the first first."""
        raise NotImplementedError from error

    def do_handshake(self, block: bool = False) -> None:  # noqa: D102, FBT001, FBT002 - as ssl has it
        try:
            super().do_handshake(block)
        except OSError:
            self.close()  # paho drops it open
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # noqa: D102
        try:
            received = super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.tell(error)
            raise
        if not received:
            self.tell(ConnectionResetError(_("the broker hung up")))
        return received

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:  # noqa: D102
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            # A broker that hung up before it was written to has said why; paho reads no more.
            with contextlib.suppress(OSError):
                self.recv()
            self.tell(error)
            raise


def reporting_to(failure: "asyncio.Future[None]") -> type[ssl.SSLSocket]:
    """A socket class whose first breakage becomes the exception of ``failure``."""
    loop = failure.get_loop()

    def keep(error: OSError) -> None:
        if not failure.done():
            failure.set_exception(error)

    class Reporting(Witness):
        """Reports to the loop of ``failure``."""

        @staticmethod
        def tell(error: OSError) -> None:
            loop.call_soon_threadsafe(keep, error)

    return Reporting
