"""A fuzz run over every decoder of the protocol: ``python -m tests.fuzz [SECONDS] [SEED]``.

Takes valid documents apart and together wrongly, for as long as asked, and prints as JSON how many
were taken and how many refused. Anything but a document or the one typed error ends it with exit
code 1 and the input that did it.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from fleet_protocol import manifest, messages, policy
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import Channel
from tests.support.manifests import small_manifest

EPOCH = "00112233445566aa"
BASE = messages.TimeBase(EPOCH, 1_000, 1_763_800_000_000, messages.ClockState.TRUSTED)
POLICY = b"""format = 1
name = "p"
version = "1"
release = 1
model = "pressure_leak"
[[rules]]
name = "high"
when = "score > 0.5 && reading.pressure < 20.0"
outcome = "event"
"""


class Target(NamedTuple):
    """A decoder and documents that it takes."""

    name: str
    decode: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def targets() -> list[Target]:
    """Every decoder, in both formats where there are two."""
    metric = messages.Metric(0, "pressure", "m")
    readings = [messages.Reading(0, index, 41.5) for index in range(5)]
    inference = messages.Inference(0, "m", "1", "leak", 0.9, 0.9, 40)
    event = messages.Event(0, "leak", messages.Severity.WARNING, "", "m", {"score": 0.9})
    documents: list[tuple[Channel, messages.Message]] = [
        (Channel.TELEMETRY, messages.Telemetry(EPOCH, 1, BASE, [metric], readings, [inference])),
        (Channel.TELEMETRY, messages.Gap(EPOCH, 9, 3, 70, "quota", 1, 2, [metric])),
        (Channel.EVENT, messages.Events(EPOCH, 1, BASE, [event])),
        (Channel.ACK, messages.Ack(marks=[messages.Mark(EPOCH, messages.Stream.EVENT, 7)])),
    ]
    found = [
        Target(
            f"{channel.value} {written_as.name}",
            lambda payload, c=channel, w=written_as: messages.decode(c, payload, w.value),  # type: ignore[misc]
            (messages.encode(message, written_as),),
        )
        for channel, message in documents
        for written_as in messages.Format
    ]
    found.append(Target("manifest", manifest.parse, (manifest.encode(small_manifest()),)))
    found.append(Target("policy", _compiled, (POLICY,)))
    return found


def _compiled(content: bytes) -> object:
    return policy.CompiledPolicy(policy.parse(content), small_manifest())


def damaged(document: bytes, chance: random.Random) -> bytes:
    """``document`` with a few bytes changed, cut out, doubled or put in."""
    content = bytearray(document)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(content) + 1)
        length = chance.choice((1, 1, 2, 4, 16))
        match chance.randrange(4):
            case 0:
                content[at : at + length] = chance.randbytes(length)
            case 1:
                del content[at : at + length]
            case 2:
                content[at:at] = content[at : at + length] * chance.choice((1, 2, 50))
            case _:
                content[at:at] = chance.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\xc1", b"[", b'"', b"\x00", b"9" * 40)
                )
    return bytes(content)


def run(seconds: float, seed: int) -> dict[str, dict[str, int]]:
    """Damage and decode for ``seconds``; what became of it, by decoder."""
    chance = random.Random(seed)
    seen = {target.name: {"taken": 0, "refused": 0} for target in targets()}
    everything = targets()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        target = chance.choice(everything)
        payload = damaged(chance.choice(target.seeds), chance)
        try:
            target.decode(payload)
            seen[target.name]["taken"] += 1
        except ProtocolError:
            seen[target.name]["refused"] += 1
        except BaseException:
            print(f"{target.name}: {payload!r}", file=sys.stderr)
            raise
    return seen


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "60", "1"][:2]
    print(json.dumps(run(float(arguments[0]), int(arguments[1])), indent=2))
