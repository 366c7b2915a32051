"""How often one caller may ask, in memory that does not grow, and who counts as one; the time is handed in.

A caller is an address, a token, or a device that has proved itself. Many devices can stand behind one
address of a mobile network, so the bound is there to keep one caller from taking all of a processor, and
no more.
"""

import ipaddress
import math
import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from starlette.requests import Request

from fleet_protocol.buckets import TokenBucket

MOST_KEPT: Final = 10_000
"""Callers that are remembered; beyond that, whoever asked the longest ago is forgotten and begins anew."""

_S_PER_HOUR: Final = 3600.0
_IPV6_NETWORK: Final = 64
"""Bits that one customer of a provider has at least: they are one caller, however many addresses they use."""


class Rate(NamedTuple):
    """So many requests a second for long, and so many at once."""

    per_s: float
    burst: float

    @property
    def pause_s(self) -> int:
        """How long it takes until one more may be asked, at least, in whole seconds."""
        return math.ceil(1.0 / self.per_s)


class Paces:
    """A bucket of requests for each caller, of which at most ``most`` are remembered; any thread may ask."""

    def __init__(self, rate: Rate, most: int = MOST_KEPT) -> None:
        self.rate: Final = rate
        self._most: Final = most
        self._buckets: Final[OrderedDict[str, TokenBucket]] = OrderedDict()
        self._lock: Final = threading.Lock()

    def wait_s(self, caller: str, now_s: float) -> float:
        """Take one request of ``caller``; 0, or in how many seconds there is one to take."""
        with self._lock:
            bucket = self._buckets.pop(caller, None)
            if bucket is None:
                bucket = TokenBucket(self.rate.per_s * _S_PER_HOUR, self.rate.burst, now_s)
            # Put back at the end: the front is who was quiet longest.
            self._buckets[caller] = bucket
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
            return 0.0 if bucket.take(now_s) else bucket.wait_s(now_s)

    def allows(self, caller: str, now_s: float) -> bool:
        """Take one request of ``caller``; False where there is none to take."""
        return self.wait_s(caller, now_s) == 0.0


def source_of(request: Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else ""


def network_of(address: str) -> str:
    """Who counts as one caller: an IPv4 address, or all addresses of an IPv6 network."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(given, ipaddress.IPv6Address) and given.ipv4_mapped:
        # A listener on '::' hears of IPv4 so: not all of the world behind it is one caller.
        given = given.ipv4_mapped
    if isinstance(given, ipaddress.IPv4Address):
        return str(given)
    return str(ipaddress.ip_network((given, _IPV6_NETWORK), strict=False))
