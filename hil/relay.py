"""A user-space link between two network namespaces: delay, loss, reordering, rate, one-way cuts.

``netem`` is missing in many kernels, and its randomness has no seed. This process holds a TUN device
in each namespace and carries packets from one to the other as ``link.json`` in its folder says, looked
at every time it changes. Every random choice comes from one seed and the packets' order.

Needs root. ``python -m hil.relay --folder DIR --center NAMESPACE --field NAMESPACE --seed N``.
"""

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

CENTER: Final = "10.77.0.1"
FIELD: Final = "10.77.0.2"
MTU: Final = 1400

QUEUE_BYTES: Final = 64 * 1024
"""What waits for a slow link before packets are dropped: about what a modem holds."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_CLONE_NEWNET: Final = 0x40000000
_LOOK_S: Final = 0.05
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the link does; as the scenario step ``link`` says."""

    delay_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    rate_kbit: float = 0.0
    cut: str = "none"


@dataclass(slots=True)
class Direction:
    """One way: when its line is free again, and what it decides for each packet. Pure."""

    name: str
    random: random.Random
    free_at: float = 0.0
    waiting: int = 0
    dropped: int = 0

    def due(self, size: int, now: float, conditions: Conditions) -> float | None:
        """When a packet of ``size`` bytes arrives; None where it is lost."""
        chance, shuffle = self.random.random(), self.random.random()
        if conditions.cut in {self.name, "both"} or chance < conditions.loss:
            self.dropped += 1
            return None
        begins = now
        if conditions.rate_kbit:
            if self.waiting + size > QUEUE_BYTES:
                self.dropped += 1
                return None
            begins = max(now, self.free_at)
            self.free_at = begins + size * 8 / (conditions.rate_kbit * 1000)
            begins = self.free_at
        delay_s = conditions.delay_ms / 1000
        # A packet out of order is one that takes the longer way.
        extra = delay_s * 0.5 + 0.005 if shuffle < conditions.reorder else 0.0
        return begins + delay_s + extra


@dataclass(order=True, slots=True)
class _Packet:
    due: float
    number: int
    to: int = field(compare=False)
    content: bytes = field(compare=False)
    way: Direction = field(compare=False)


class Relay:
    """Two devices and the packets between them."""

    def __init__(self, folder: Path, center: int, field_: int, seed: int) -> None:
        self._file = folder / "link.json"
        self._up = Direction("up", random.Random(seed))  # noqa: S311 - repeatable, not secret
        self._down = Direction("down", random.Random(seed + 1))  # noqa: S311
        self._ends = {field_: (center, self._up), center: (field_, self._down)}
        self._queue: list[_Packet] = []
        self._numbers = count()
        self._conditions = Conditions()
        self._seen = 0

    def run(self) -> None:
        """Carry packets for ever."""
        while True:
            self._look()
            wait_s = min(_LOOK_S, max(0.0, self._queue[0].due - time.monotonic())) if self._queue else _LOOK_S
            for end in select.select(list(self._ends), [], [], wait_s)[0]:
                self._take(end)
            self._deliver()

    def _look(self) -> None:
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._seen:
                self._conditions = Conditions(**json.loads(self._file.read_text()))
                self._seen = changed
        except FileNotFoundError:
            return

    def _take(self, end: int) -> None:
        content = os.read(end, 65536)
        to, way = self._ends[end]
        now = time.monotonic()
        due = way.due(len(content), now, self._conditions)
        if due is not None:
            way.waiting += len(content)
            heapq.heappush(self._queue, _Packet(due, next(self._numbers), to, content, way))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._queue and self._queue[0].due <= now:
            packet = heapq.heappop(self._queue)
            packet.way.waiting -= len(packet.content)
            os.write(packet.to, packet.content)


def open_tun(namespace: str, name: str, address: str) -> int:
    """A TUN device in ``namespace`` with ``address``/24, up; its descriptor works from here."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        enter(there)
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        for command in (
            f"ip addr add {address}/24 dev {name}",
            f"ip link set {name} mtu {MTU} up",
            "ip link set lo up",
        ):
            subprocess.run(command.split(), check=True)
    finally:
        enter(home)
        os.close(home)
        os.close(there)
    return device


def enter(namespace: int) -> None:
    """Move this thread into the network namespace behind the descriptor ``namespace``."""
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """The command line; writes ``relay.ready`` once packets can pass."""
    parser = argparse.ArgumentParser(prog="hil.relay")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--center", required=True)
    parser.add_argument("--field", required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    center = open_tun(options.center, "center", CENTER)
    field_ = open_tun(options.field, "field", FIELD)
    (options.folder / "relay.ready").touch()
    Relay(options.folder, center, field_, options.seed).run()


if __name__ == "__main__":
    main()
