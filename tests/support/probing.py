"""Whether the broker lets a certificate in, asked without speaking MQTT: no session is touched."""

import socket
import ssl

from tests.support.fleet_broker import ANSWER_S, Identity

_PINGREQ = b"\xc0\x00"


def is_let_in(port: int, identity: Identity) -> bool:
    """False where the broker refuses the certificate; it hangs up on whom it lets in and who says nothing."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as raw:
        try:
            with identity.context().wrap_socket(raw, server_hostname="localhost") as link:
                link.sendall(_PINGREQ)
                link.recv(1)
        except ssl.SSLError:
            return False
        except ConnectionError:
            return True
    return True
