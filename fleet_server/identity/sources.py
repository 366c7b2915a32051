"""How often one source may ask, where callers are not asked who they are. Pure: the time is handed in.

A source is an address, or a device that has proved itself. Many devices can stand behind one address
of a mobile network, so the bound is there to keep one caller from taking all of a processor, and no more.
"""

import ipaddress
import math
import threading
from collections import OrderedDict
from typing import Final

from starlette.requests import Request

from fleet_protocol.buckets import TokenBucket

MOST_SOURCES: Final = 10_000
"""Remembered at once; the one not heard of for longest goes first, and begins anew when it comes back."""

_IPV6_NETWORK: Final = 64
"""Bits that one customer of a provider has at least: they are one caller, however many addresses they use."""


class Sources:
    """A bucket of requests for each source, of which it remembers a bounded number."""

    def __init__(self, per_hour: float, burst: float, most: int = MOST_SOURCES) -> None:
        self._per_hour: Final = per_hour
        self._burst: Final = burst
        self._most: Final = most
        self._buckets: Final[OrderedDict[str, TokenBucket]] = OrderedDict()
        self._lock: Final = threading.Lock()

    @property
    def wait_s(self) -> int:
        """How long to wait for one more, at least."""
        return math.ceil(3600 / self._per_hour)

    def allow(self, source: str, now_s: float) -> bool:
        """Count one request of ``source``; False where it asks too often."""
        caller = network_of(source)
        with self._lock:
            bucket = self._buckets.get(caller)
            if bucket is None:
                bucket = self._buckets[caller] = TokenBucket(self._per_hour, self._burst, now_s)
                if len(self._buckets) > self._most:
                    self._buckets.popitem(last=False)
            self._buckets.move_to_end(caller)
            return bucket.take(now_s)


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
