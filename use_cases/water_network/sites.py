"""Where the gateways stand, and which junctions each one guards.

Fifteen metering chambers of Net3, chosen once by greedy coverage: for a leak of 5 L/s at every
junction, how far the flow in every pipe moves against its own day-to-day spread. A junction belongs
to the chamber that sees it best, if the flow there moves by at least 0.7 spreads. Thirty-four of the
81 junctions that may leak are seen by no chamber: Net3 is a mesh, and a small leak on its trunk
mains is lost in hundreds of L/s. They are nobody's district, and no figure counts them.

Junctions are split once into those that leak in training and those held out.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gateway:
    """A metering chamber: pressure at ``node``, flow in ``pipe`` beside it, junctions that it guards."""

    name: str
    node: str
    pipe: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]


GATEWAYS: Final = (
    Gateway("gw-207", "207", "239", ("206", "207", "209", "211", "237"), ("208", "239")),
    Gateway("gw-149", "149", "161", ("141", "145", "149"), ("143", "147")),
    Gateway("gw-213", "213", "245", ("213", "217", "219"), ("215", "225")),
    Gateway("gw-187", "187", "209", ("184", "187"), ("185", "204")),
    Gateway("gw-129", "129", "135", ("129", "139"), ("131",)),
    Gateway("gw-164", "164", "180", ("164",), ("166",)),
    Gateway("gw-273", "273", "235", ("273",), ("205",)),
    Gateway("gw-153", "153", "163", ("153",), ("151",)),
    Gateway("gw-259", "259", "299", ("259",), ("257",)),
    Gateway("gw-241", "241", "275", ("241",), ("243",)),
    Gateway("gw-229", "229", "271", ("229",), ("231",)),
    Gateway("gw-191", "191", "217", ("191",), ("197",)),
    Gateway("gw-167", "167", "185", ("167",), ()),
    Gateway("gw-195", "195", "219", (), ("195",)),
    Gateway("gw-247", "247", "285", ("247", "251", "255"), ("249", "253")),
)
