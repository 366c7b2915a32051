"""Whether a model that answers right on this board also fits it: in time and in memory. Pure.

What is over the budget is unfit and not failed: the same bytes may fit tomorrow, on a board that is
less busy or has one model less. So it is not remembered against them, and tried again while ordered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.errors import UpdateUnfit
from fleet_protocol.texts import _

SHARE: Final = 0.5
"""Of the time between two windows that answers may take; the rest is for sensors, disk and network."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an answer takes, as the median over golden inputs, and what there is: real microseconds."""

    answer_us: float
    step_us: float

    @property
    def share(self) -> float:
        """Of the time between two windows that an answer takes."""
        return self.answer_us / self.step_us


def require_time(name: str, new: Pace, beside: Sequence[Pace] = ()) -> None:
    """See to it that ``new`` answers well before its next window, and with all that runs ``beside`` it.

    Raises:
        UpdateUnfit: it does not.
    """
    left = SHARE - sum(pace.share for pace in beside)
    if new.share <= left:
        return
    raise UpdateUnfit(
        _(
            "{name}: an answer takes {answer:.3g} ms here, and {most:.3g} of the {step:.3g} ms between two "
            "windows are left for it; publish a faster one"
        ).format(
            name=name,
            answer=new.answer_us / 1000,
            most=max(left, 0.0) * new.step_us / 1000,
            step=new.step_us / 1000,
        )
    )


def require_memory(name: str, needed_mib: int, used_mib: int, most_mib: int) -> None:
    """See to it that agent and workers, ``needed_mib`` with the model, stay within ``most_mib``.

    What takes no more than the ``used_mib`` of today is no worse than that, and may come.

    Raises:
        UpdateUnfit: they do not.
    """
    if needed_mib > max(most_mib, used_mib):
        raise UpdateUnfit(
            _(
                "{name}: agent and workers would take {needed} MiB with it, the profile allows {most} MiB; "
                "publish a smaller one"
            ).format(name=name, needed=needed_mib, most=most_mib)
        )
